import type { Pool } from "../api";
import { age, bytes, cores } from "../format";
import { Bar } from "../parts/bar";
import { Chart } from "../parts/chart";
import { Shown, useLive } from "../parts/live";

export function PoolPage() {
  const live = useLive<Pool>("/diolkos/v1/pool");
  return <Shown live={live}>{(pool) => <PoolView pool={pool} />}</Shown>;
}

function PoolView({ pool }: { pool: Pool }) {
  const { totals, history, nodes } = pool;
  const series = (used: (number | null)[], requested: number[], allocatable: number[]) => [
    { label: "allocatable", values: allocatable, colour: "#8b949e", dash: [4, 4] },
    { label: "requested", values: requested, colour: "#d29922" },
    { label: "used", values: used, colour: "#1f6feb", fill: "#1f6feb22" },
  ];
  return (
    <>
      <section class="tiles">
        <Tile title="Nodes ready" value={`${totals.ready} / ${totals.nodes}`} bad={totals.ready < totals.nodes} />
        <Tile title="Pods" value={`${totals.pods}`} />
        <Tile title="Pending" value={`${totals.pending}`} bad={totals.pending > 0} />
      </section>
      <section class="two">
        <div class="card">
          <h2>CPU, cores</h2>
          <Chart at_s={history.at_s} unit={cores} series={series(history.cpu_used_m, history.cpu_requested_m, history.cpu_allocatable_m)} />
        </div>
        <div class="card">
          <h2>Memory</h2>
          <Chart at_s={history.at_s} unit={bytes} series={series(history.memory_used, history.memory_requested, history.memory_allocatable)} />
        </div>
      </section>
      <section class="card">
        <h2>Nodes</h2>
        <table>
          <thead>
            <tr>
              <th>Node</th>
              <th>State</th>
              <th>CPU used / requested / allocatable</th>
              <th>Memory used / requested / allocatable</th>
              <th class="number">Pods</th>
              <th>Version</th>
              <th class="number">Age</th>
            </tr>
          </thead>
          <tbody>
            {nodes.map((node) => (
              <tr key={node.name}>
                <td><b>{node.name}</b></td>
                <td>
                  <span class={node.ready ? "pill ok" : "pill bad"}>{node.ready ? "Ready" : "Not ready"}</span>
                  {node.cordoned && <span class="pill warn">Cordoned</span>}
                  {node.reasons.map((reason) => <small key={reason}>{reason}</small>)}
                </td>
                <td><Bar used={node.cpu.used_m} requested={node.cpu.requested_m} whole={node.cpu.allocatable_m} say={cores} /></td>
                <td><Bar used={node.memory.used} requested={node.memory.requested} whole={node.memory.allocatable} say={bytes} /></td>
                <td class="number">{node.pods} / {node.max_pods}</td>
                <td>{node.version}</td>
                <td class="number">{age(node.age_s)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
    </>
  );
}

function Tile(props: { title: string; value: string; bad?: boolean }) {
  return (
    <div class={props.bad ? "tile bad" : "tile"}>
      <span>{props.title}</span>
      <b>{props.value}</b>
    </div>
  );
}
