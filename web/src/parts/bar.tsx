/** Used (filled) against requested (tick) against allocatable (the whole width). */
export function Bar(props: { used: number | null; requested: number; whole: number; say: (value: number) => string }) {
  const { used, requested, whole, say } = props;
  const at = (value: number) => `${whole > 0 ? Math.min(100, (100 * value) / whole) : 0}%`;
  const title = `used ${used === null ? "not measured yet" : say(used)}, requested ${say(requested)}, allocatable ${say(whole)}`;
  const hot = used !== null && whole > 0 && used / whole > 0.85;
  return (
    <div class="measure" title={title}>
      <div class="bar" role="img" aria-label={title}>
        <div class="requested" style={{ width: at(requested) }} />
        {used !== null && <div class={hot ? "used hot" : "used"} style={{ width: at(used) }} />}
      </div>
      <small>
        {used === null ? "–" : say(used)} <span>/ {say(requested)} / {say(whole)}</span>
      </small>
    </div>
  );
}
