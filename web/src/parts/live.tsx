import { useEffect, useState } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { get, Refusal, token } from "../api";

const PERIOD_MS = 3000;

export interface Live<T> { data: T | null; error: string | null; at: number }

/** Asks a path now and every three seconds; keeps the last answer when one fails, and says so. */
export function useLive<T>(path: string): Live<T> {
  const [state, setState] = useState<Live<T>>({ data: null, error: null, at: 0 });
  useEffect(() => {
    let stopped = false;
    let timer = 0;
    const ask = async () => {
      try {
        const data = await get<T>(path);
        if (!stopped) setState({ data, error: null, at: Date.now() });
      } catch (error) {
        if (stopped) return;
        if (error instanceof Refusal && error.status === 401) {
          token.clear();
          location.reload();
        }
        setState((before) => ({ ...before, error: error instanceof Error ? error.message : String(error) }));
      }
      if (!stopped) timer = window.setTimeout(ask, PERIOD_MS);
    };
    void ask();
    return () => {
      stopped = true;
      clearTimeout(timer);
    };
  }, [path]);
  return state;
}

/** Content once there is some; before that, why not. A failing refresh is shown above the last good answer. */
export function Shown<T>(props: { live: Live<T>; children: (data: T) => ComponentChildren }) {
  const { data, error, at } = props.live;
  return (
    <>
      {error && (
        <p class="notice bad" role="alert">
          {data ? `Not refreshed since ${new Date(at).toLocaleTimeString()}: ${error}` : error}
        </p>
      )}
      {data ? props.children(data) : !error && <p class="notice">Loading …</p>}
    </>
  );
}
