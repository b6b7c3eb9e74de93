import type { ServiceTraffic } from "../api";
import { rate } from "../format";

const COLUMN = 16;
const ROW = 15;
const LEFT = 70;

/** As it is: a bound that is rounded is another bound. */
const bound = (of_ms: number) => (of_ms >= 1000 ? `${of_ms / 1000} s` : `${of_ms} ms`);

/** Requests by time (columns) and latency (rows), and what of each column failed below. Rows that nothing fell into, above and below, are left out. */
export function Heat({ traffic }: { traffic: ServiceTraffic }) {
  const { at_s, buckets, bounds_ms, slots, slot_s, error_share, requests_per_s } = traffic;
  if (at_s.length === 0) return <p class="notice">No request in the last ten minutes.</p>;
  const used = bounds_ms.map((_, row) => buckets.some((column) => (column[row] ?? 0) > 0));
  used.push(buckets.some((column) => (column[bounds_ms.length] ?? 0) > 0));
  const lowest = Math.max(0, used.indexOf(true) - 1);
  const highest = Math.min(bounds_ms.length, used.lastIndexOf(true) + 1);
  const rows = Array.from({ length: highest - lowest + 1 }, (_, at) => highest - at);
  const newest = at_s[at_s.length - 1]!;
  const column = (at: number) => slots - 1 - Math.round((newest - at) / slot_s);
  const height = rows.length * ROW;
  const label = (row: number) => (row < bounds_ms.length ? `≤ ${bound(bounds_ms[row]!)}` : `> ${bound(bounds_ms[bounds_ms.length - 1]!)}`);
  return (
    <div class="heat">
      <svg viewBox={`0 0 ${LEFT + slots * COLUMN} ${height + 40}`} role="img" aria-label="Requests by time and latency">
        {rows.map((row, at) => (
          <g key={row}>
            <rect class="ground" x={LEFT} y={at * ROW} width={slots * COLUMN} height={ROW - 1} />
            <text x={LEFT - 8} y={at * ROW + 11}>{label(row)}</text>
          </g>
        ))}
        {at_s.map((time, slot) => {
          const counts = buckets[slot] ?? [];
          const most = Math.max(1, ...counts);
          const x = LEFT + column(time) * COLUMN;
          const when = new Date(time * 1000).toLocaleTimeString();
          const failed = error_share[slot] ?? 0;
          return (
            <g key={time}>
              {rows.map((row, at) => {
                const count = counts[row] ?? 0;
                return count > 0 && (
                  <rect key={row} class="cell" x={x} y={at * ROW} width={COLUMN - 1} height={ROW - 1} fill-opacity={0.15 + 0.85 * (count / most)}>
                    <title>{`${when}: ${count} requests ${label(row)}`}</title>
                  </rect>
                );
              })}
              <rect class="errors" x={x} y={height + 4} width={COLUMN - 1} height="8" fill-opacity={failed > 0 ? 0.25 + 0.75 * failed : 0}>
                <title>{`${when}: ${(failed * 100).toFixed(1)} % of ${rate(requests_per_s[slot] ?? 0)} failed`}</title>
              </rect>
            </g>
          );
        })}
        <text x={LEFT - 8} y={height + 12}>errors</text>
        <text class="time" x={LEFT} y={height + 32}>{new Date((newest - (slots - 1) * slot_s) * 1000).toLocaleTimeString()}</text>
        <text x={LEFT + slots * COLUMN} y={height + 32}>{new Date(newest * 1000).toLocaleTimeString()}</text>
      </svg>
    </div>
  );
}
