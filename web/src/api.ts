// The platform's public HTTP, as the dashboard uses it. Shapes: docs/dashboard-api.md.

export interface Amount { used: number | null; requested: number; allocatable: number }
export interface PoolNode {
  name: string; ready: boolean; cordoned: boolean; reasons: string[];
  cpu: { used_m: number | null; requested_m: number; allocatable_m: number };
  memory: Amount; pods: number; max_pods: number; version: string; age_s: number;
}
export interface History {
  at_s: number[]; cpu_used_m: (number | null)[]; cpu_requested_m: number[]; cpu_allocatable_m: number[];
  memory_used: (number | null)[]; memory_requested: number[]; memory_allocatable: number[];
}
export interface Pool { nodes: PoolNode[]; totals: { pods: number; pending: number; nodes: number; ready: number }; history: History }
export interface Workload {
  namespace: string; kind: string; name: string; desired: number; ready: number; updated: number; restarts: number;
  state: "ok" | "progressing" | "degraded"; reasons: string[]; images: string[]; age_s: number;
}
export interface End { namespace: string; workload: string }
export interface Edge {
  source: End; destination: End; service: string; service_namespace: string; protocol: string; mtls: boolean;
  requests_per_s: number; error_share: number; p50_ms: number | null; p99_ms: number | null; bytes_per_s: number;
}
export interface Route {
  namespace: string; name: string; kind: string; parents: string[]; hostnames: string[]; accepted: boolean; reason: string;
  rules: { match: string; backends: { name: string; weight: number; share: number | null }[] }[];
}
export interface PlatformEvent { at_s: number; type: string; reason: string; object: string; message: string; count: number }

export interface Port { port: number; name: string; protocol: string }
export interface ServiceRow { namespace: string; name: string; hosts: string[]; addresses: string[]; ports: Port[]; ready: number; endpoints: number }
export interface Endpoint {
  address: string; health: "ready" | "draining" | "not ready"; zone: string; region: string; node: string; weight: number; meshed: boolean;
  workload: { namespace: string; name: string; of: string; version: string } | null;
}
export interface Policy { kind: string; namespace: string; name: string; scope: "mesh" | "namespace" | "workload"; does: string }
export interface ServiceDetail {
  namespace: string; name: string; hosts: string[]; addresses: string[]; ports: Port[]; endpoints: Endpoint[]; endpoints_truncated: boolean;
  routes: string[]; policies: Policy[];
}
export interface ServiceTraffic {
  slot_s: number; slots: number; bounds_ms: number[]; at_s: number[]; requests_per_s: number[]; error_share: number[]; buckets: number[][]; callers: Edge[];
}

const TOKEN = "diolkos-token";

export const token = {
  get: (): string | null => sessionStorage.getItem(TOKEN),
  set: (value: string): void => sessionStorage.setItem(TOKEN, value),
  clear: (): void => sessionStorage.removeItem(TOKEN),
};

/** The platform refused, or is away. `status` is 0 when no answer came. */
export class Refusal extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

export async function get<T>(path: string, bearer = token.get()): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(path, { headers: { accept: "application/json", ...(bearer ? { authorization: `Bearer ${bearer}` } : {}) } });
  } catch {
    throw new Refusal(0, "the platform does not answer");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refusal(answer.status, body.message ?? answer.statusText);
  return body as T;
}

/** Who the token belongs to; fails when it is no good. */
export async function whoAmI(bearer: string): Promise<string> {
  const answer = await fetch("/apis/authentication.k8s.io/v1/selfsubjectreviews", {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json", authorization: `Bearer ${bearer}` },
    body: JSON.stringify({ apiVersion: "authentication.k8s.io/v1", kind: "SelfSubjectReview" }),
  }).catch(() => { throw new Refusal(0, "the platform does not answer"); });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refusal(answer.status, answer.status === 401 ? "this token is not valid (any more)" : body.message);
  return body.status?.userInfo?.username ?? "";
}
