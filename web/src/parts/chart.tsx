import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

export interface Series { label: string; values: (number | null)[]; colour: string; fill?: string; dash?: number[] }

/** Lines over time. */
export function Chart(props: { at_s: number[]; series: Series[]; unit: (value: number) => string; height?: number }) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const shape = props.series.map((series) => series.label).join();
  const unit = useRef(props.unit);
  unit.current = props.unit;
  useEffect(() => {
    const root = place.current;
    if (!root) return;
    const style = getComputedStyle(root);
    const ink = style.getPropertyValue("--faint");
    const grid = style.getPropertyValue("--line");
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const made = new uPlot(
      {
        width: root.clientWidth,
        height: props.height ?? 170,
        cursor: { y: false },
        legend: { show: false },
        scales: { y: { range: (_, __, max) => [0, max > 0 ? max * 1.1 : 1] } },
        axes: [axis, { ...axis, size: 64, values: (_, splits) => splits.map((split) => unit.current(split)) }],
        series: [{}, ...props.series.map((series) => ({
          label: series.label, stroke: series.colour, width: 2, fill: series.fill, dash: series.dash, points: { show: false },
        }))],
      },
      [props.at_s, ...props.series.map((series) => series.values)] as uPlot.AlignedData,
      root,
    );
    plot.current = made;
    const resize = new ResizeObserver(() => made.setSize({ width: root.clientWidth, height: props.height ?? 170 }));
    resize.observe(root);
    return () => {
      resize.disconnect();
      made.destroy();
    };
  }, [shape]);
  useEffect(() => {
    plot.current?.setData([props.at_s, ...props.series.map((series) => series.values)] as uPlot.AlignedData);
  }, [props.at_s, props.series]);
  return (
    <figure class="chart">
      <div ref={place} />
      <figcaption>
        {props.series.map((series) => {
          const last = [...series.values].reverse().find((value) => value !== null);
          return (
            <span key={series.label}>
              <i style={{ background: series.colour }} /> {series.label} {last === undefined || last === null ? "–" : props.unit(last)}
            </span>
          );
        })}
      </figcaption>
    </figure>
  );
}
