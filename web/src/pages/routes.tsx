import type { Route } from "../api";
import { percent } from "../format";
import { Shown, useLive } from "../parts/live";

const COLOURS = ["#1f6feb", "#d29922", "#3fb950", "#a371f7", "#f778ba", "#8b949e"];

export function RoutesPage() {
  const live = useLive<{ routes: Route[] }>("/diolkos/v1/routes");
  return (
    <Shown live={live}>
      {({ routes }) => (
        <>
          {routes.length === 0 && <p class="notice">There is no route yet.</p>}
          {routes.map((route) => (
            <section class="card" key={`${route.kind}/${route.namespace}/${route.name}`}>
              <header>
                <h2>{route.name} <small>{route.kind} · {route.namespace}</small></h2>
                <span class={route.accepted ? "pill ok" : "pill bad"}>{route.accepted ? "Accepted" : route.reason || "Not accepted"}</span>
              </header>
              <p class="faint">
                for {route.parents.join(", ") || "nothing"}
                {route.hostnames.length > 0 && ` · ${route.hostnames.join(", ")}`}
              </p>
              {route.rules.map((rule, at) => <Rule key={at} rule={rule} />)}
            </section>
          ))}
        </>
      )}
    </Shown>
  );
}

function Rule({ rule }: { rule: Route["rules"][number] }) {
  const whole = rule.backends.reduce((sum, backend) => sum + backend.weight, 0);
  const share = (weight: number) => (whole > 0 ? weight / whole : 0);
  return (
    <div class="rule">
      <span class="mono">{rule.match}</span>
      <div class="weights" role="img" aria-label={rule.backends.map((backend) => `${backend.name} ${percent(share(backend.weight))}`).join(", ")}>
        {rule.backends.map((backend, at) => (
          <div key={backend.name} style={{ width: `${100 * share(backend.weight)}%`, background: COLOURS[at % COLOURS.length] }} />
        ))}
      </div>
      <ul>
        {rule.backends.map((backend, at) => (
          <li key={backend.name}>
            <i style={{ background: COLOURS[at % COLOURS.length] }} /> {backend.name}: asked {percent(share(backend.weight))}
            {backend.share !== null && `, measured ${percent(backend.share)}`}
          </li>
        ))}
      </ul>
    </div>
  );
}
