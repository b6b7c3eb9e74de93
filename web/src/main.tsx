import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { token } from "./api";
import { EventsPage } from "./pages/events";
import { MeshPage } from "./pages/mesh";
import { PoolPage } from "./pages/pool";
import { RoutesPage } from "./pages/routes";
import { ServicesPage } from "./pages/services";
import { SignIn } from "./pages/signin";
import { WorkloadsPage } from "./pages/workloads";
import "./style.css";

const PAGES = [
  { at: "#/pool", name: "Pool", page: PoolPage },
  { at: "#/workloads", name: "Workloads", page: WorkloadsPage },
  { at: "#/mesh", name: "Mesh", page: MeshPage },
  { at: "#/services", name: "Services", page: ServicesPage },
  { at: "#/routes", name: "Routes", page: RoutesPage },
  { at: "#/events", name: "Events", page: EventsPage },
];

// A link may carry the token behind the address (#/pool?token=...): it never reaches a server, and it is taken out of the address at once.
function takeTokenFromAddress(): void {
  const [page, query] = location.hash.split("?");
  const given = new URLSearchParams(query ?? "").get("token");
  if (given) {
    token.set(given);
    history.replaceState(null, "", page || "#/pool");
  }
}

function App() {
  const [signedIn, setSignedIn] = useState(token.get() !== null);
  const [at, setAt] = useState(location.hash || "#/pool");
  useEffect(() => {
    const moved = () => setAt(location.hash || "#/pool");
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  if (!signedIn) return <SignIn onDone={() => setSignedIn(true)} />;
  const here = PAGES.find((page) => page.at === at || at.startsWith(`${page.at}/`)) ?? PAGES[0]!;
  const Page = here.page;
  return (
    <>
      <nav>
        <b>Diolkos</b>
        {PAGES.map((page) => <a key={page.at} href={page.at} aria-current={page === here ? "page" : undefined}>{page.name}</a>)}
        <button class="quiet" onClick={() => { token.clear(); setSignedIn(false); }}>Sign out</button>
      </nav>
      <main><Page /></main>
    </>
  );
}

takeTokenFromAddress();
render(<App />, document.getElementById("app")!);
