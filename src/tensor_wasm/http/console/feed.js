// Asking the node: with the token, again and again, less often while it does not answer, not at all while nobody looks.

import { moment } from "./format.js";

const INTERVAL_MS = 3_000;
const TIMEOUT_MS = 8_000;
const FIRST_DELAY_MS = 2_000;
const LAST_DELAY_MS = 30_000;
const SCHEMA = "tensor-wasm/observe/1";

/** The node refused the token, or there is none: `message` for people. */
export class Denied extends Error {}

/** The node answered with an error: its `kind` and its message. */
export class Refused extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

/** No answer came, or none of a node. */
export class Unreachable extends Error {}

// A tenant is a number of 64 bits, more than a number of JavaScript holds: its digits stay as they were sent.
const exact = (key, value, context) => (key === "tenant" && typeof value === "number" && context?.source) || value;

/**
 * The node's document, every few seconds.
 *
 * `onDocument(document, at)` for each, `onChange()` when something else changed: `state` is one of
 * "starting", "live", "paused", "gone", "denied"; `message` says why; `answeredAt` is when the last document came and
 * `nextAt` when it asks again. Nothing but this object has the token.
 */
export class Feed {
  #token = null;
  #timer = 0;
  #failures = 0;
  #asking = false;
  #isPaused = false;
  #generation = 0;
  #onDocument;
  #onChange;

  state = "starting";
  message = "";
  answeredAt = null;
  nextAt = null;

  constructor(onDocument, onChange) {
    this.#onDocument = onDocument;
    this.#onChange = onChange;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#stop() : this.refresh()));
  }

  get hasToken() {
    return this.#token !== null;
  }

  get isPaused() {
    return this.#isPaused;
  }

  /** Wait for a token. */
  needToken(message = "") {
    this.#token = null;
    this.#generation += 1;
    this.#stop();
    this.answeredAt = null;
    this.#become("denied", message);
  }

  useToken(token) {
    this.#token = token;
    this.#generation += 1;
    this.#failures = 0;
    this.#become("starting", "");
    return this.refresh();
  }

  pause() {
    this.#isPaused = true;
    this.#stop();
    this.#become("paused", "");
  }

  resume() {
    this.#isPaused = false;
    this.#become("starting", "");
    return this.refresh();
  }

  /** Ask now, unless that is not wanted; and then again and again. */
  async refresh() {
    if (this.#asking || this.#isPaused || document.hidden || this.state === "denied") return;
    this.#stop();
    this.#asking = true;
    const generation = this.#generation;
    try {
      const found = await this.#ask("GET", "admin/observe?history=true");
      // The token was forgotten meanwhile: what it opened is not shown.
      if (generation !== this.#generation) return;
      if (found?.schema !== SCHEMA) throw new Refused("schema", "The node speaks of itself in another way than this page knows: reload the page.");
      this.#failures = 0;
      this.answeredAt = Date.now();
      this.#onDocument(found, moment(found.taken_at) ?? this.answeredAt);
      if (!this.#isPaused) this.#become("live", "");
    } catch (error) {
      if (generation !== this.#generation) return;
      if (error instanceof Denied) {
        this.needToken(error.message);
      } else {
        this.#failures += 1;
        if (!(error instanceof Refused || error instanceof Unreachable)) console.error(error);
        if (!this.#isPaused) this.#become("gone", error.message);
      }
    } finally {
      this.#asking = false;
      if (generation === this.#generation) this.#plan();
      else this.refresh();
    }
  }

  /** End an instance; what the node answers. Raises Denied, Refused, Unreachable. */
  terminate(id) {
    return this.#ask("POST", `admin/instances/${encodeURIComponent(id)}/terminate`);
  }

  #stop() {
    clearTimeout(this.#timer);
    this.nextAt = null;
  }

  #plan() {
    this.#stop();
    if (this.#isPaused || document.hidden || this.state === "denied") return;
    const delay = this.#failures ? Math.min(FIRST_DELAY_MS * 2 ** (this.#failures - 1), LAST_DELAY_MS) : INTERVAL_MS;
    this.nextAt = Date.now() + delay;
    this.#timer = setTimeout(() => this.refresh(), delay);
    this.#onChange();
  }

  #become(state, message) {
    this.state = state;
    this.message = message;
    this.#onChange();
  }

  async #ask(method, path) {
    const headers = this.#token === null ? {} : { Authorization: `Bearer ${this.#token}` };
    let response;
    let text;
    try {
      // Paths are relative, so that the page works behind a proxy that puts something before them.
      response = await fetch(path, {
        method,
        headers,
        cache: "no-store",
        redirect: "error",
        referrerPolicy: "no-referrer",
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      text = await response.text();
    } catch (error) {
      const late = error?.name === "TimeoutError";
      throw new Unreachable(late ? `No answer within ${TIMEOUT_MS / 1000} s.` : "No connection.");
    }
    let body = null;
    try {
      body = text === "" ? null : JSON.parse(text, exact);
    } catch {
      // No JSON: not the node itself, or not whole.
    }
    if (response.ok && body !== null) return body;
    const { kind = "", message = `It answered ${response.status}.` } = body?.error ?? {};
    if (response.status === 401) {
      throw new Denied(headers.Authorization ? "The node does not know this token." : "");
    }
    if (response.status === 403) throw new Denied("This token may not see the node: it needs role=admin.");
    if (kind) throw new Refused(kind, message);
    throw new Unreachable(`What answers is no node: ${response.status}.`);
  }
}
