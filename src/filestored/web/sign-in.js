// Signing in by token.

import { ApiError, explain } from "./api.js";
import { field, openForm } from "./dialogs.js";
import { make } from "./dom.js";
import { say } from "./words.js";

let isOpen = false;

/** Ask for a token, see that the server takes it, and sign in with it. `why` says why it is asked for. */
export async function askForToken(api, why = "") {
  if (isOpen) return;
  isOpen = true;
  const input = make("input", {
    type: "password", required: true, autocomplete: "current-password", spellcheck: "false",
  });
  const remember = make("input", { type: "checkbox" });
  const submit = async () => {
    const token = input.value.trim();
    // what is not ASCII cannot even be sent
    if (!/^[!-~]+$/.test(token)) throw new ApiError(401);
    await api.try(token);
    api.session.signIn(token, remember.checked);
  };
  await openForm(say("sign-in"), [
    why && make("p", {}, why),
    field(say("token"), input),
    make("p", { class: "hint" }, say("token.hint")),
    make("label", { class: "tick" }, remember, say("token.remember")),
  ], {
    button: say("sign-in"), submit,
    explain: (error) => (error.status === 401 ? say("token.wrong") : explain(error)),
  });
  isOpen = false;
}
