import { useState } from "preact/hooks";
import { token, whoAmI } from "../api";

export function SignIn(props: { onDone: () => void }) {
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    const text = String(new FormData(event.currentTarget as HTMLFormElement).get("token") ?? "").trim();
    setBusy(true);
    try {
      await whoAmI(text);
      token.set(text);
      props.onDone();
    } catch (failure) {
      setError(failure instanceof Error ? failure.message : String(failure));
    } finally {
      setBusy(false);
    }
  };
  return (
    <form class="signin card" onSubmit={submit}>
      <h1>Diolkos</h1>
      <label for="token">Token</label>
      <textarea id="token" name="token" rows={4} required autocomplete="off" spellcheck={false} />
      {error && <p class="notice bad" role="alert">{error}</p>}
      <button disabled={busy}>Sign in</button>
      <p class="faint">Get one with <code>diolkos token dashboard</code>, or <code>kubectl create token</code> for any ServiceAccount: you see what it may see.</p>
    </form>
  );
}
