import dagre from "@dagrejs/dagre";
import { useMemo, useState } from "preact/hooks";
import type { Edge, End } from "../api";
import { bytes, ms, percent, rate } from "../format";
import { Shown, useLive } from "../parts/live";
import { serviceLink } from "./services";

const WIDTH = 168;
const HEIGHT = 46;

const idOf = (end: End) => `${end.namespace}/${end.workload}`;

interface Drawn { x: number; y: number; label: string; namespace: string; id: string }
interface Line { edge: Edge; points: { x: number; y: number }[]; label: { x: number; y: number } }

/** One edge for two ends, whatever Services lie between: sums of traffic, the busiest's median, the worst p99, and plain if any of it is. */
function pairs(edges: Edge[]): Edge[] {
  const found = new Map<string, Edge[]>();
  for (const edge of edges) {
    const key = `${idOf(edge.source)}>${idOf(edge.destination)}`;
    found.set(key, [...(found.get(key) ?? []), edge]);
  }
  return [...found.values()].map((parallel) => {
    const busiest = parallel.reduce((a, b) => (b.requests_per_s > a.requests_per_s ? b : a));
    const sum = (of: (edge: Edge) => number) => parallel.reduce((total, edge) => total + of(edge), 0);
    const requests = sum((edge) => edge.requests_per_s);
    return {
      ...busiest,
      requests_per_s: requests,
      bytes_per_s: sum((edge) => edge.bytes_per_s),
      error_share: requests > 0 ? sum((edge) => edge.error_share * edge.requests_per_s) / requests : busiest.error_share,
      p99_ms: parallel.map((edge) => edge.p99_ms).reduce((a, b) => (b !== null && (a === null || b > a) ? b : a)),
      mtls: parallel.every((edge) => edge.mtls),
    };
  });
}

/** Layers from callers to callees. */
function layout(edges: Edge[]): { nodes: Drawn[]; lines: Line[]; width: number; height: number } {
  const graph = new dagre.graphlib.Graph({ multigraph: true });
  graph.setGraph({ rankdir: "LR", nodesep: 28, ranksep: 190, marginx: 16, marginy: 24 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const edge of edges) {
    for (const end of [edge.source, edge.destination]) {
      graph.setNode(idOf(end), { width: WIDTH, height: HEIGHT, label: end.workload, namespace: end.namespace });
    }
  }
  edges.forEach((edge, at) => {
    graph.setEdge(idOf(edge.source), idOf(edge.destination), { width: 150, height: 34, labelpos: "c", edge }, `${at}`);
  });
  dagre.layout(graph);
  const nodes = graph.nodes().map((id) => {
    const { x, y, label, namespace } = graph.node(id) as unknown as Drawn;
    return { id, x, y, label: label ?? id, namespace };
  });
  const lines = graph.edges().map((at) => {
    const { edge, points, x, y } = graph.edge(at) as unknown as { edge: Edge; points: Line["points"]; x: number; y: number };
    return { edge, points, label: { x, y } };
  });
  const { width = 0, height = 0 } = graph.graph();
  return { nodes, lines, width, height };
}

function path(points: Line["points"]): string {
  const [first, ...rest] = points;
  if (!first) return "";
  let text = `M${first.x},${first.y}`;
  for (let i = 0; i < rest.length - 1; i++) {
    const [here, next] = [rest[i]!, rest[i + 1]!];
    text += `Q${here.x},${here.y} ${(here.x + next.x) / 2},${(here.y + next.y) / 2}`;
  }
  const last = rest[rest.length - 1];
  return last ? `${text}L${last.x},${last.y}` : text;
}

const health = (edge: Edge) => (edge.error_share > 0.05 ? "bad" : edge.error_share > 0 ? "warn" : "ok");

export function MeshPage() {
  const live = useLive<{ window_s: number; edges: Edge[] }>("/diolkos/v1/graph");
  return (
    <Shown live={live}>
      {({ edges, window_s }) => (
        <>
          <Graph edges={pairs(edges)} window_s={window_s} />
          <Edges edges={edges} />
        </>
      )}
    </Shown>
  );
}

function Graph({ edges, window_s }: { edges: Edge[]; window_s: number }) {
  const shape = edges.map((edge) => `${idOf(edge.source)}>${idOf(edge.destination)}>${edge.service}`).sort().join();
  const { nodes, lines, width, height } = useMemo(() => layout(edges), [shape]);
  const now = new Map(edges.map((edge) => [`${idOf(edge.source)}>${idOf(edge.destination)}>${edge.service}`, edge]));
  const [chosen, setChosen] = useState<string | null>(null);
  const touches = (edge: Edge) => chosen === null || idOf(edge.source) === chosen || idOf(edge.destination) === chosen;
  return (
    <section class="card">
      <header>
        <h2>Service graph</h2>
        <small>the last {window_s} s · <span class="key ok">no errors</span> <span class="key warn">some</span> <span class="key bad">over 5 %</span></small>
      </header>
      {edges.length === 0 && <p class="notice">No request has passed the mesh in the last {window_s} s.</p>}
      <div class="graph">
        <svg viewBox={`0 0 ${Math.max(width, 300)} ${Math.max(height, 80)}`} style={{ maxWidth: `${Math.max(width, 300)}px` }}>
          <defs>
            {["ok", "warn", "bad"].map((kind) => (
              <marker key={kind} id={`arrow-${kind}`} viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
                <path d="M0,0 L8,4 L0,8 z" class={`head ${kind}`} />
              </marker>
            ))}
          </defs>
          {lines.map(({ edge, points, label }) => {
            const key = `${idOf(edge.source)}>${idOf(edge.destination)}>${edge.service}`;
            const fresh = now.get(key) ?? edge;
            return (
              <g key={key} class={touches(edge) ? `edge ${health(fresh)}` : "edge dim"}>
                <path d={path(points)} marker-end={`url(#arrow-${health(fresh)})`} style={{ strokeWidth: 1.5 + Math.min(4, Math.log10(1 + fresh.requests_per_s)) }} />
                <g transform={`translate(${label.x},${label.y})`}>
                  <rect x="-74" y="-17" width="148" height="34" rx="5" />
                  <text y="-3">{fresh.mtls ? "mTLS " : "plain "}{fresh.protocol === "tcp" ? `${bytes(fresh.bytes_per_s)}/s` : rate(fresh.requests_per_s)} · {percent(fresh.error_share)} err</text>
                  <text y="11" class="faint">p50 {ms(fresh.p50_ms)} · p99 {ms(fresh.p99_ms)}</text>
                </g>
              </g>
            );
          })}
          {nodes.map((node) => (
            <g key={node.id} class={chosen === node.id ? "node chosen" : "node"} transform={`translate(${node.x - WIDTH / 2},${node.y - HEIGHT / 2})`} onClick={() => setChosen(chosen === node.id ? null : node.id)}>
              <rect width={WIDTH} height={HEIGHT} rx="8" />
              <text x={WIDTH / 2} y="20">{node.label}</text>
              <text x={WIDTH / 2} y="36" class="faint">{node.namespace}</text>
            </g>
          ))}
        </svg>
      </div>
    </section>
  );
}

function Edges({ edges }: { edges: Edge[] }) {
  const sorted = [...edges].sort((a, b) => b.error_share - a.error_share || b.requests_per_s - a.requests_per_s);
  return (
    <section class="card">
      <h2>Who calls whom</h2>
      <table>
        <thead>
          <tr><th>From</th><th>To</th><th>Service</th><th>Protocol</th><th>Identity</th><th class="number">Rate</th><th class="number">Errors</th><th class="number">p50</th><th class="number">p99</th></tr>
        </thead>
        <tbody>
          {sorted.map((edge) => (
            <tr key={`${idOf(edge.source)}>${idOf(edge.destination)}>${edge.service}`}>
              <td>{edge.source.workload} <small>{edge.source.namespace}</small></td>
              <td>{edge.destination.workload} <small>{edge.destination.namespace}</small></td>
              <td>{edge.service && edge.service !== "unknown" ? <a href={serviceLink(edge.service_namespace, edge.service)}>{edge.service}</a> : edge.service}</td>
              <td>{edge.protocol}</td>
              <td><span class={edge.mtls ? "pill ok" : "pill warn"}>{edge.mtls ? "mTLS" : "plain"}</span></td>
              <td class="number">{rate(edge.requests_per_s)}</td>
              <td class="number">{percent(edge.error_share)}</td>
              <td class="number">{ms(edge.p50_ms)}</td>
              <td class="number">{ms(edge.p99_ms)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
