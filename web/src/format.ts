// Numbers as a person reads them.

export function cores(milli: number): string {
  return milli >= 10_000 ? `${Math.round(milli / 1000)}` : `${(milli / 1000).toFixed(2)}`;
}

export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let rest = count;
  while (rest >= 1024 && unit < units.length - 1) {
    rest /= 1024;
    unit++;
  }
  return `${rest >= 100 || unit === 0 ? rest.toFixed(0) : rest.toFixed(1)} ${units[unit]}`;
}

export function rate(perSecond: number): string {
  if (perSecond === 0) return "0/s";
  return perSecond >= 100 ? `${Math.round(perSecond)}/s` : `${perSecond.toFixed(1)}/s`;
}

export function percent(share: number): string {
  const value = share * 100;
  return value === 0 ? "0 %" : value < 0.1 ? "< 0.1 %" : `${value.toFixed(value < 10 ? 1 : 0)} %`;
}

export function ms(value: number | null): string {
  if (value === null) return "–";
  return value >= 100 ? `${Math.round(value)} ms` : `${value.toFixed(value < 10 ? 1 : 0)} ms`;
}

export function age(seconds: number): string {
  if (seconds < 120) return `${Math.max(0, Math.round(seconds))}s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}
