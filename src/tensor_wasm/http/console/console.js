// The console: what the node says of itself, every few seconds, and the end of an instance that the operator names.

import { Board, short } from "./board.js";
import { Denied, Feed } from "./feed.js";
import { age, amount, clock, name } from "./format.js";
import { make, setLines, setMark, setText } from "./table.js";

const TITLE = "TensorWasm console";
//: After so long without an answer the numbers are called old.
const OLD_MS = 10_000;
const TICK_MS = 1_000;
const NEWS_MOST = 4;
const TOKEN = /^[\x21-\x7e]+$/;

const by = (id) => document.getElementById(id);

const board = new Board(ask);
const feed = new Feed(show, tell);
const dialog = by("confirm");
let asked = null;
let breached = 0;
let lastState = "starting";

function show(found) {
  by("board").hidden = false;
  breached = found.slo.filter(({ state }) => state === "breached").length;
  const news = board.update(found);
  if (news) announce(news);
}

// The newest first. What an operator did is not to vanish behind what happens by itself a moment later.
function announce(text) {
  const list = by("news");
  list.prepend(make("p", {}, make("span", { class: "dim" }, clock(Date.now())), ` ${text}`));
  while (list.children.length > NEWS_MOST) list.lastElementChild.remove();
}

// What the header says of the connection; also each second, for it says how old the numbers are.
function tell() {
  const { state, message, answeredAt, nextAt } = feed;
  const isDenied = state === "denied";
  const since = answeredAt === null ? null : Date.now() - answeredAt;
  const ago = since === null ? "" : ` · numbers of ${age(since / 1000)} ago`;
  const isOld = since !== null && since > OLD_MS;
  by("sign-in").hidden = !isDenied;
  by("pause").hidden = isDenied;
  by("forget").hidden = !feed.hasToken;
  setText(by("pause"), feed.isPaused ? "Resume" : "Pause");
  document.body.classList.toggle("old", isOld);
  if (isDenied) setMark(by("state"), "quiet", "Needs a token");
  else if (state === "paused") setMark(by("state"), "quiet", `Paused${ago}`);
  else if (state === "gone") {
    const soon = nextAt === null ? "" : ` · asks again in ${Math.max(0, Math.ceil((nextAt - Date.now()) / 1000))} s`;
    setMark(by("state"), "bad", `No answer${ago}${soon}`);
    by("state").title = message;
  } else if (isOld) setMark(by("state"), "warn", `Old${ago}`);
  else if (state === "live") setMark(by("state"), "ok", `Live · ${clock(answeredAt)}`);
  else setMark(by("state"), "quiet", "Asking the node");
  document.title = `${state === "gone" ? "No answer · " : breached && !isDenied ? `${breached} breached · ` : ""}${TITLE}`;
  if (state !== lastState) turned(state, message);
}

// Said once for each turn of events.
function turned(state, message) {
  const before = lastState;
  lastState = state;
  if (state === "gone") announce(`The node does not answer: ${message} What is shown is from before. On its machine, tensor-wasm observe may say why.`);
  else if (state === "live" && before === "gone") announce("The node answers again.");
  else if (state === "denied") demand(message);
}

// Ask for a token, and show nothing meanwhile of what one opened.
function demand(message) {
  by("board").hidden = true;
  by("notices").replaceChildren();
  setText(by("where"), "");
  by("news").replaceChildren();
  board.clear();
  if (dialog.open) dialog.close();
  setText(by("sign-in-error"), message);
  by("token").focus();
}

function ask(instance) {
  asked = instance;
  setLines(by("confirm-facts"), [
    ["Instance", String(instance.id)],
    ["Tenant", String(instance.tenant)],
    ["Function", name(instance.function)],
    ["Export", name(instance.export)],
    ["Age", age(instance.age_s)],
    ["Launches a second", amount(instance.launches_per_s)],
  ]);
  setText(by("confirm-error"), "");
  dialog.showModal();
}

async function terminate() {
  const instance = asked;
  const button = by("confirm-yes");
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  setText(button, "Terminating …");
  const which = `Instance ${short(instance.id)} of tenant ${instance.tenant}`;
  try {
    const done = await feed.terminate(instance.id);
    announce(done.ended ? `${which} ended in ${amount(done.took_ms)} ms.` : `${which} was told to end and has not yet.`);
    dialog.close();
    feed.refresh();
  } catch (error) {
    if (error instanceof Denied) feed.needToken(error.message);
    else if (error.kind === "not_found") {
      announce(`${which} had ended before.`);
      dialog.close();
    } else setText(by("confirm-error"), `It was not ended: ${error.message}`);
  } finally {
    button.removeAttribute("aria-disabled");
    setText(button, "Terminate");
  }
}

by("confirm-no").addEventListener("click", () => dialog.close());
by("confirm-yes").addEventListener("click", terminate);
by("pause").addEventListener("click", () => (feed.isPaused ? feed.resume() : feed.pause()));
by("forget").addEventListener("click", () => feed.needToken());
by("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = by("token");
  const token = field.value.trim();
  // Nothing keeps it but the feed: no field, and so no manager of passwords either.
  field.value = "";
  if (!TOKEN.test(token)) setText(by("sign-in-error"), "That is no token: tokens are of letters, digits and signs.");
  else {
    setText(by("sign-in-error"), "");
    feed.useToken(token);
    by("main").focus();
  }
});
setInterval(tell, TICK_MS);

if (document.documentElement.dataset.access === "open") feed.refresh();
else feed.needToken();
