import { useState } from "preact/hooks";
import type { Workload } from "../api";
import { age } from "../format";
import { Shown, useLive } from "../parts/live";

export function WorkloadsPage() {
  const live = useLive<{ workloads: Workload[]; truncated: boolean }>("/diolkos/v1/workloads");
  const [text, setText] = useState("");
  const wanted = (w: Workload) => `${w.namespace}/${w.name} ${w.kind}`.toLowerCase().includes(text.toLowerCase());
  return (
    <Shown live={live}>
      {({ workloads, truncated }) => (
        <section class="card">
          <header>
            <h2>Workloads</h2>
            <input type="search" placeholder="Filter by name, namespace, kind" value={text} onInput={(e) => setText(e.currentTarget.value)} />
          </header>
          <table>
            <thead>
              <tr>
                <th>Workload</th>
                <th>Namespace</th>
                <th>State</th>
                <th class="number">Ready</th>
                <th class="number">Restarts</th>
                <th>Image</th>
                <th class="number">Age</th>
              </tr>
            </thead>
            <tbody>
              {workloads.filter(wanted).map((w) => (
                <tr key={`${w.kind}/${w.namespace}/${w.name}`}>
                  <td><b>{w.name}</b> <small>{w.kind}</small></td>
                  <td>{w.namespace}</td>
                  <td>
                    <span class={`pill ${{ ok: "ok", progressing: "warn", degraded: "bad" }[w.state]}`}>
                      {{ ok: "OK", progressing: "Progressing", degraded: "Degraded" }[w.state]}
                    </span>
                    {w.reasons.map((reason) => <small key={reason} class="reason">{reason}</small>)}
                  </td>
                  <td class="number">{w.ready} / {w.desired}</td>
                  <td class="number">{w.restarts}</td>
                  <td class="mono">{w.images.join(", ")}</td>
                  <td class="number">{age(w.age_s)}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {workloads.length === 0 && <p class="notice">Nothing runs yet. Try: kubectl apply -f examples/bookstore/</p>}
          {truncated && <p class="notice">Only the first 1,000 are shown, worst first.</p>}
        </section>
      )}
    </Shown>
  );
}
