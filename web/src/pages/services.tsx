import { useEffect, useState } from "preact/hooks";
import type { ServiceDetail, ServiceRow, ServiceTraffic } from "../api";
import { ms, percent, rate } from "../format";
import { Heat } from "../parts/heat";
import { Shown, useLive } from "../parts/live";

const HERE = "#/services";

export const serviceLink = (namespace: string, name: string) => `${HERE}/${namespace}/${encodeURIComponent(name)}`;

/** The list, or one service when the address names it. */
export function ServicesPage() {
  const [at, setAt] = useState(location.hash);
  useEffect(() => {
    const moved = () => setAt(location.hash);
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  const [, , namespace, name] = at.split("?")[0]!.split("/");
  return namespace && name ? <Service key={at} namespace={namespace} name={decodeURIComponent(name)} /> : <List />;
}

function List() {
  const live = useLive<{ services: ServiceRow[]; truncated: boolean }>("/diolkos/v1/services");
  const [text, setText] = useState("");
  const wanted = (s: ServiceRow) => `${s.namespace}/${s.name}`.toLowerCase().includes(text.toLowerCase());
  return (
    <Shown live={live}>
      {({ services, truncated }) => (
        <section class="card">
          <header>
            <h2>Services</h2>
            <input type="search" placeholder="Filter by name, namespace" value={text} onInput={(e) => setText(e.currentTarget.value)} />
          </header>
          <table>
            <thead><tr><th>Service</th><th>Namespace</th><th class="number">Endpoints ready</th><th>Ports</th><th>Addresses</th></tr></thead>
            <tbody>
              {services.filter(wanted).map((s) => (
                <tr key={`${s.namespace}/${s.name}`}>
                  <td><a href={serviceLink(s.namespace, s.name)}><b>{s.name}</b></a></td>
                  <td>{s.namespace}</td>
                  <td class="number"><span class={`pill ${s.ready === 0 ? (s.endpoints === 0 ? "" : "bad") : s.ready < s.endpoints ? "warn" : "ok"}`}>{s.ready} / {s.endpoints}</span></td>
                  <td class="mono">{s.ports.map((port) => `${port.port} ${port.protocol.toLowerCase()}`).join(", ")}</td>
                  <td class="mono">{s.addresses.join(", ") || "headless"}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {services.length === 0 && <p class="notice">There is no service yet.</p>}
          {truncated && <p class="notice">Only the first 1,000 are shown.</p>}
        </section>
      )}
    </Shown>
  );
}

function Service({ namespace, name }: { namespace: string; name: string }) {
  const path = `${namespace}/${encodeURIComponent(name)}`;
  const service = useLive<ServiceDetail>(`/diolkos/v1/services/${path}`);
  const traffic = useLive<ServiceTraffic>(`/diolkos/v1/traffic/${path}`);
  return (
    <>
      <p class="crumbs"><a href={HERE}>Services</a> / {namespace} / <b>{name}</b></p>
      <Shown live={traffic}>{(told) => <Traffic traffic={told} />}</Shown>
      <Shown live={service}>
        {(told) => (
          <>
            <Endpoints service={told} />
            <Policies service={told} />
          </>
        )}
      </Shown>
    </>
  );
}

/** Over the window that callers are told for; a service that nobody called has dashes. */
function Traffic({ traffic }: { traffic: ServiceTraffic }) {
  const { callers } = traffic;
  const requests = callers.reduce((sum, edge) => sum + edge.requests_per_s, 0);
  const errors = requests > 0 ? callers.reduce((sum, edge) => sum + edge.error_share * edge.requests_per_s, 0) / requests : 0;
  const worst = callers.map((edge) => edge.p99_ms).reduce<number | null>((a, b) => (b !== null && (a === null || b > a) ? b : a), null);
  const secured = callers.filter((edge) => edge.mtls).reduce((sum, edge) => sum + edge.requests_per_s, 0);
  return (
    <>
      <section class="tiles">
        <Tile title="Requests" value={rate(requests)} />
        <Tile title="Errors" value={requests > 0 ? percent(errors) : "–"} bad={errors > 0.05} />
        <Tile title="p99, slowest caller" value={ms(worst)} />
        <Tile title="Under mTLS" value={requests > 0 ? percent(secured / requests) : "–"} />
      </section>
      <section class="card">
        <header><h2>Latency</h2><small>the last ten minutes, one column for {traffic.slot_s} s; darker: more of its requests</small></header>
        <Heat traffic={traffic} />
      </section>
      <section class="card">
        <h2>Who calls it</h2>
        <table>
          <thead><tr><th>From</th><th>To</th><th>Protocol</th><th>Identity</th><th class="number">Rate</th><th class="number">Errors</th><th class="number">p50</th><th class="number">p99</th></tr></thead>
          <tbody>
            {callers.map((edge) => (
              <tr key={`${edge.source.namespace}/${edge.source.workload}>${edge.destination.workload}>${edge.protocol}>${edge.mtls}`}>
                <td>{edge.source.workload} <small>{edge.source.namespace}</small></td>
                <td>{edge.destination.workload}</td>
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
        {callers.length === 0 && <p class="notice">Nobody has called it in the last minute.</p>}
      </section>
    </>
  );
}

function Tile(props: { title: string; value: string; bad?: boolean }) {
  return <div class={props.bad ? "tile bad" : "tile"}><span>{props.title}</span><b>{props.value}</b></div>;
}

function Endpoints({ service }: { service: ServiceDetail }) {
  return (
    <section class="card">
      <header>
        <h2>Endpoints</h2>
        <small>{service.hosts[0]} · {service.addresses.join(", ") || "headless"} · {service.ports.map((port) => `${port.port} ${port.protocol.toLowerCase()}`).join(", ")}</small>
      </header>
      <table>
        <thead><tr><th>Address</th><th>Health</th><th>Workload</th><th>Version</th><th>Zone</th><th>Node</th><th>Reached by</th></tr></thead>
        <tbody>
          {service.endpoints.map((endpoint) => (
            <tr key={endpoint.address}>
              <td class="mono">{endpoint.address}</td>
              <td><span class={`pill ${{ ready: "ok", draining: "warn", "not ready": "bad" }[endpoint.health]}`}>{endpoint.health}</span></td>
              <td>{endpoint.workload ? <>{endpoint.workload.name} <small>{endpoint.workload.of}</small></> : "–"}</td>
              <td>{endpoint.workload?.version ?? "–"}</td>
              <td>{endpoint.zone || "–"} <small>{endpoint.region}</small></td>
              <td>{endpoint.node || "–"}</td>
              <td>{endpoint.meshed ? "mTLS tunnel" : "plain TCP"}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {service.endpoints.length === 0 && <p class="notice">It has no endpoint: requests to it are answered with 503.</p>}
      {service.endpoints_truncated && <p class="notice">Only the first 500 are shown.</p>}
    </section>
  );
}

function Policies({ service }: { service: ServiceDetail }) {
  return (
    <section class="card">
      <h2>What applies</h2>
      <table>
        <thead><tr><th>Kind</th><th>Name</th><th>Namespace</th><th>Holds for</th><th>Does</th></tr></thead>
        <tbody>
          {service.policies.map((policy) => (
            <tr key={`${policy.kind}/${policy.namespace}/${policy.name}`}>
              <td>{policy.kind}</td>
              <td><b>{policy.name}</b></td>
              <td>{policy.namespace}</td>
              <td>{{ mesh: "the whole mesh", namespace: "its namespace", workload: "these workloads" }[policy.scope]}</td>
              <td>{policy.does}</td>
            </tr>
          ))}
          {service.routes.map((route) => {
            const [kind, namespace, name] = route.split("/");
            return <tr key={route}><td>{kind}</td><td><b>{name}</b></td><td>{namespace}</td><td>requests to it</td><td><a href="#/routes">Routes</a></td></tr>;
          })}
        </tbody>
      </table>
      {service.policies.length + service.routes.length === 0 && <p class="notice">No policy and no route: everybody may call it, and every endpoint gets its share.</p>}
    </section>
  );
}
