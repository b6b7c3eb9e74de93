import type { PlatformEvent } from "../api";
import { age } from "../format";
import { Shown, useLive } from "../parts/live";

export function EventsPage() {
  const live = useLive<{ events: PlatformEvent[] }>("/diolkos/v1/events");
  const now = Date.now() / 1000;
  return (
    <Shown live={live}>
      {({ events }) => (
        <section class="card">
          <h2>Events</h2>
          <table>
            <thead>
              <tr><th class="number">Ago</th><th>Type</th><th>Reason</th><th>Object</th><th>Message</th><th class="number">Count</th></tr>
            </thead>
            <tbody>
              {events.map((event, at) => (
                <tr key={at}>
                  <td class="number">{age(now - event.at_s)}</td>
                  <td><span class={event.type === "Warning" ? "pill warn" : "pill"}>{event.type}</span></td>
                  <td>{event.reason}</td>
                  <td class="mono">{event.object}</td>
                  <td>{event.message}</td>
                  <td class="number">{event.count}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {events.length === 0 && <p class="notice">Nothing has happened yet.</p>}
        </section>
      )}
    </Shown>
  );
}
