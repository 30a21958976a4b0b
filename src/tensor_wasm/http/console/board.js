// The node's document on the page.

import { TimeChart } from "./chart.js";
import { age, amount, bytes, counted, date, inUnit, latency, moment, name, NOTHING, share } from "./format.js";
import { KeyedTable, make, setAttribute, setLines, setMark, setText } from "./table.js";

const RUNBOOKS = "https://github.com/tensor-wasm/tensor-wasm/blob/main/docs/runbooks/";
const DISPATCH = "latency_dispatch_serial_P95";
//: The objective for /healthz: with more lag than this it cannot hold.
const LAG_MOST_S = 0.01;
//: From here on a tenant has most of the dispatches.
const DOMINANT_SHARE = 0.5;
const FULL_RATIO = 0.9;
const WINDOWS = 3;
const ID_SHOWN = 8;

const by = (id) => document.getElementById(id);
// All that came when the node counted as many by themselves as it can have no number.
const tenantOf = ({ tenant }) => (tenant === null ? "all others" : String(tenant));
const shown = (state) => String(state ?? NOTHING).replaceAll("_", " ");

/** Everything below the header. `onTerminate(instance)` is called for the button of an instance's row. */
export class Board {
  #tenants;
  #slo;
  #instances;
  #charts;
  #onTerminate;
  #first = null;
  #states = new Map();
  #buttons = new WeakMap();
  #documents = { instances: [] };

  constructor(onTerminate) {
    this.#onTerminate = onTerminate;
    this.#charts = charts();
    by("objectives").before(...this.#charts.map(({ chart }) => chart.figure));
    this.#tenants = new KeyedTable(by("tenants"), TENANT_COLUMNS, "No tenant did anything.");
    this.#slo = new KeyedTable(by("slo"), SLO_COLUMNS, "None are stated.");
    const action = { name: "Action", kind: "action", write: (cell, instance) => this.#button(cell, instance) };
    this.#instances = new KeyedTable(by("instances"), [...INSTANCE_COLUMNS, action], "No instance is live.",
      (row) => this.#gone(row));
  }

  /** Show a document; the news in it: what became of objectives since the last. */
  update(found) {
    this.#documents = found;
    setText(by("where"), [found.node.url, found.node.device, `up ${age(found.node.uptime_s)}`].filter(Boolean).join(" · "));
    const isShort = found.covered_s < found.window_s * 0.95;
    setText(by("window"), `rates and percentiles over the last ${age(isShort ? found.covered_s : found.window_s)}${isShort ? ", since the node started" : ""}`);
    this.#tiles(found);
    this.#history(found);
    const busy = found.tenants.filter((tenant) => tenant.dispatches_per_s > 0).length;
    this.#tenants.update(found.tenants.map((tenant) => ({ ...tenant, isAlone: busy < 2 })), tenantOf);
    this.#slo.update(found.slo, (objective) => objective.name);
    this.#instances.update(found.instances, (instance) => instance.id);
    const rest = found.instance_count > found.instances.length;
    setText(by("instances").caption, rest
      ? `${found.instances.length} of ${amount(found.instance_count)}, most launches a second first; tensor-wasm admin instance list has all`
      : "Most launches a second first");
    facts(found);
    this.#notices(found);
    return this.#news(found);
  }

  /** Forget what is shown: the next document may be of another node. */
  clear() {
    this.#first = null;
    this.#states.clear();
    this.#instances.update([], () => "");
    this.#tenants.update([], () => "");
  }

  #tiles(found) {
    const list = by("tiles");
    const tiles = TILES.map((tile) => tile(found));
    if (list.children.length === 0) {
      list.append(...tiles.map(() => make("div", { class: "panel" }, make("dt"), make("dd", { class: "big" }), make("dd"))));
    }
    tiles.forEach(({ title, value, note, state, told }, index) => {
      const [term, big, small] = list.children[index].children;
      setText(term, title);
      setText(big, value);
      if (small.children.length === 0) small.append(make("span", { class: "dim" }), make("span"));
      setText(small.children[0], note);
      setMark(small.children[1], state, told ?? "");
      small.children[1].hidden = !told;
    });
  }

  #history(found) {
    const samples = found.history ?? [];
    const span_s = WINDOWS * found.window_s;
    const end = moment(found.taken_at) ?? Date.now();
    setText(by("span"), span_s % 60 ? `${Math.round(span_s)} seconds` : counted(span_s / 60, "minute"));
    for (const { chart, target } of this.#charts) chart.update(samples, end, span_s, target?.(found) ?? null);
  }

  #button(cell, instance) {
    let button = cell.firstElementChild;
    if (button === null) {
      button = make("button", { type: "button", class: "small" });
      button.addEventListener("click", () => {
        if (button.getAttribute("aria-disabled") !== "true") this.#onTerminate(this.#buttons.get(button), button);
      });
      cell.append(button);
    }
    this.#buttons.set(button, instance);
    setText(button, "Terminate");
    setAttribute(button, "aria-disabled", null);
    setAttribute(button, "aria-label", `Terminate instance ${short(instance.id)} of tenant ${instance.tenant}`);
  }

  // A row that is no longer given, while somebody is in the table: it keeps its place, and says so.
  #gone(row) {
    const isListed = this.#documents.instance_count <= this.#documents.instances.length;
    const button = row.querySelector("button");
    setMark(row.querySelector(".state"), "quiet", isListed ? "ended" : "not among the first now");
    if (!isListed) return;
    setText(button, "Ended");
    setAttribute(button, "aria-disabled", "true");
    setAttribute(button, "aria-label", null);
  }

  #notices(found) {
    const notices = [];
    this.#first ??= `${found.node.version} ${found.node.git_sha}`;
    if (found.node.draining) notices.push(["warn", "The node drains: it takes no more work and ends when what runs has finished."]);
    if (found.unread.length) notices.push(["warn", `Could not be read: ${found.unread.map(name).join("; ")}`]);
    if (this.#first !== `${found.node.version} ${found.node.git_sha}`) {
      notices.push(["warn", "The node runs another release than when this page was opened. Reload the page for that release's; it asks for the token again."]);
    }
    const list = by("notices");
    if (list.children.length !== notices.length) list.replaceChildren(...notices.map(() => make("p", { class: "notice" })));
    notices.forEach(([state, text], index) => setMark(list.children[index], state, text));
  }

  #news(found) {
    const news = [];
    for (const { name: objective, state } of found.slo) {
      const before = this.#states.get(objective);
      if (before !== undefined && before !== state && "breached" in { [before]: 0, [state]: 0 }) {
        news.push(state === "breached" ? `${objective} is breached.` : `${objective} is no longer breached.`);
      }
      this.#states.set(objective, state);
    }
    return news.join(" ");
  }
}

export const short = (id) => String(id).slice(0, ID_SHOWN);

const objective = (found, wanted) => found.slo.find((one) => one.name === wanted);
const target = (found) => {
  const one = objective(found, DISPATCH);
  return one !== undefined && one.unit === "s" && one.target > 0 ? one.target : null;
};

//: Objectives that are for at least their target; all others are for at most theirs.
const FLOORS = new Set(["availability"]);
const LIT = { ok: "ok", breached: "bad", no_data: "quiet" };
const TOLD = { ok: "met", breached: "breached", no_data: "no data" };

const TILES = [
  (found) => {
    const one = objective(found, DISPATCH);
    return {
      title: "Dispatch P95",
      value: latency(found.dispatch.p95_s),
      note: `P50 ${latency(found.dispatch.p50_s)} · P99 ${latency(found.dispatch.p99_s)} · ${amount(found.dispatch.per_s)}/s`,
      state: one?.state === "breached" ? "bad" : "ok",
      told: one?.state === "breached" ? `above ${inUnit(one.target, one.unit)}` : one?.state === "ok" ? `target ${inUnit(one.target, one.unit)}` : null,
    };
  },
  ({ permits }) => {
    const stuck = permits.held_without_launch;
    const isFull = permits.utilization >= FULL_RATIO;
    return {
      title: "Permits",
      value: `${amount(permits.used)} of ${amount(permits.total)}`,
      note: `mean ${share(permits.utilization)} · ${amount(permits.waiting)} waiting`,
      state: stuck > 0 ? "bad" : "warn",
      told: stuck > 0 ? `${amount(stuck)} held without a launch` : isFull ? "nearly all taken" : null,
    };
  },
  ({ http }) => ({
    title: "HTTP",
    value: `${amount(http.requests_per_s)}/s`,
    note: `P95 ${latency(http.all?.p95_s)} · ${amount(http.in_flight)} in flight`,
    state: "warn",
    told: http.errors_5xx_ratio > 0 ? `${share(http.errors_5xx_ratio)} are 5xx` : null,
  }),
  ({ event_loop: loop }) => ({
    title: "Event-loop lag P95",
    value: latency(loop.lag_p95_s),
    note: `most ${latency(loop.lag_max_s)}`,
    state: loop.stalled_s > 1 ? "bad" : "warn",
    told: loop.stalled_s > 1 ? `stalled for ${age(loop.stalled_s)}` : loop.lag_p95_s > LAG_MOST_S ? `above ${latency(LAG_MOST_S)}` : null,
  }),
  ({ workers }) => ({
    title: "Workers",
    value: `${amount(workers.busy)} of ${amount(workers.total)}`,
    note: `busy · ${amount(workers.queued)} queued`,
    state: "warn",
    told: workers.queued > 0 && workers.busy >= workers.total ? "all busy" : null,
  }),
  ({ jobs }) => ({
    title: "Jobs",
    value: `${amount(jobs.active)} active`,
    note: `${amount(jobs.pending)} pending`,
    state: "quiet",
    told: null,
  }),
];

// `room` is where a column is left out: "middle" on a phone, "wide" on a tablet too.
const number = (title, value, room = "") => ({
  name: title,
  kind: `number ${room}`.trim(),
  write: (cell, row) => setText(cell, value(row)),
});

const TENANT_COLUMNS = [
  { name: "Tenant", kind: "tenant", write: (cell, tenant) => setText(cell, tenantOf(tenant)) },
  { name: "Share", kind: "bars", write: writeShare },
  number("Dispatches/s", (tenant) => amount(tenant.dispatches_per_s)),
  number("Kernel time", (tenant) => share(tenant.execution_share), "wide"),
  number("Held", (tenant) => amount(tenant.held), "middle"),
  number("Waiting", (tenant) => amount(tenant.waiting)),
  number("Wait P95", (tenant) => latency(tenant.permit_wait_p95_s), "middle"),
  number("Calls/s", (tenant) => amount(tenant.invocations_per_s), "wide"),
  number("Instances", (tenant) => amount(tenant.instances), "wide"),
  number("Refused/s", (tenant) => amount(tenant.refused_per_s), "middle"),
];

const SLO_COLUMNS = [
  { name: "Objective", write: writeObjective },
  number("Target", (one) => `${FLOORS.has(one.name) ? "≥" : "≤"} ${inUnit(one.target, one.unit)}`, "middle"),
  number("Now", ({ value, unit }) => inUnit(value, unit)),
  { name: "State", write: writeState },
  { name: "Runbook", kind: "wrap", write: writeRunbook },
];

const INSTANCE_COLUMNS = [
  { name: "Instance", kind: "id middle", write: (cell, { id }) => { setText(cell, short(id)); setAttribute(cell, "title", String(id)); } },
  { name: "Tenant", kind: "tenant", write: (cell, instance) => setText(cell, tenantOf(instance)) },
  { name: "Function · export", kind: "name", write: writeNames },
  { name: "State", kind: "state middle", write: (cell, { state }) => { cell.classList.remove("mark"); setText(cell, shown(state)); } },
  number("Age", ({ age_s }) => age(age_s), "middle"),
  number("Deadline in", ({ deadline_left_s }) => age(deadline_left_s), "wide"),
  number("Launches", ({ launches }) => amount(launches), "wide"),
  number("Launches/s", ({ launches_per_s }) => amount(launches_per_s)),
  number("Permits", ({ held_permits }) => amount(held_permits), "middle"),
  number("Memory", ({ memory_bytes }) => bytes(memory_bytes), "wide"),
];

function writeShare(cell, { dispatch_share: part, isAlone }) {
  if (cell.children.length === 0) {
    cell.append(make("span", { class: "bar", "aria-hidden": "true" }, make("span")), make("span", { class: "percent" }), " ", make("span"));
  }
  const [bar, text, flag] = cell.children;
  bar.firstElementChild.style.width = `${Math.min(1, Math.max(0, part ?? 0)) * 100}%`;
  setText(text, share(part));
  const isDominant = !isAlone && part >= DOMINANT_SHARE;
  setMark(flag, "warn", isDominant ? "most" : "");
  flag.hidden = !isDominant;
}

function writeObjective(cell, { name: objective }) {
  // It may go on in the next line behind an underscore.
  if (cell.firstChild === null) cell.append(...name(objective).split(/(?<=_)/).flatMap((part) => [part, make("wbr")]));
}

function writeState(cell, { state }) {
  if (cell.children.length === 0) cell.append(make("span"));
  setMark(cell.firstElementChild, LIT[state] ?? "quiet", TOLD[state] ?? shown(state));
}

function writeRunbook(cell, { runbook }) {
  const isPage = typeof runbook === "string" && /^[a-z0-9-]{1,64}$/.test(runbook);
  if (cell.children.length === 0 && isPage) {
    // In a tab of its own: leaving this page would forget the token.
    const link = make("a", { target: "_blank", rel: "noopener noreferrer" }, make("span"),
      make("span", { class: "hidden" }, " (opens a new tab)"));
    cell.append(link);
  }
  const link = cell.firstElementChild;
  if (link === null) return setText(cell, NOTHING);
  setText(link.firstElementChild, runbook);
  setAttribute(link, "href", `${RUNBOOKS}${runbook}.md`);
}

function writeNames(cell, { function: called, export: entry }) {
  if (cell.children.length === 0) cell.append(make("bdi"), " · ", make("bdi", { class: "code" }));
  setText(cell.children[0], name(called));
  setText(cell.children[1], name(entry));
}

function charts() {
  const dispatch = new TimeChart({
    title: "Dispatch latency",
    lead: "dispatch_p95_s",
    about: "From the guest's call to its dispatch, on a scale of decades",
    scale: "log",
    format: latency,
    series: [
      { key: "dispatch_p50_s", label: "P50", line: "second" },
      { key: "dispatch_p95_s", label: "P95", line: "first" },
      { key: "dispatch_p99_s", label: "P99", line: "third" },
    ],
  });
  const permits = new TimeChart({
    title: "Permits",
    lead: "permits_used",
    about: "Launches in flight, and launches that wait to be",
    scale: "linear",
    fewest: 4,
    format: amount,
    series: [
      { key: "permits_used", label: "used", line: "first", isArea: true },
      { key: "permits_total", label: "of", line: "second" },
      { key: "permits_waiting", label: "waiting", line: "third" },
    ],
  });
  const loop = new TimeChart({
    title: "Answers",
    lead: "loop_lag_max_s",
    about: "How long requests take, and how late the event loop is",
    scale: "log",
    format: latency,
    series: [
      { key: "loop_lag_max_s", label: "most lag", line: "first" },
      { key: "http_p95_s", label: "HTTP P95", line: "third" },
    ],
  });
  return [{ chart: dispatch, target }, { chart: permits }, { chart: loop }];
}

const yes = (value) => (value === null || value === undefined ? NOTHING : value ? "yes" : "no");
const release = (one) => `${name(one.version)} (${name(one.git_sha).slice(0, 8)})`;

function facts(found) {
  const { node, kernels, snapshots, disk } = found;
  const previous = found.release.previous;
  const groups = [
    ["Release", [
      ["Running", release(found.release)],
      ["Since", date(moment(found.release.started_at))],
      ["Previous", previous ? release(previous) : "none known"],
      ...(previous ? [["Until", date(moment(previous.until))], ["Dispatch P95 of it", latency(previous.dispatch_p95_s)]] : []),
    ]],
    ["Process", [
      ["Device", `${name(node.device)} (${node.deployment})`],
      ["Up", age(node.uptime_s)],
      ["Process id", String(node.pid)],
      ["Drains", yes(node.draining), node.draining ? "warn" : null],
    ]],
    ["Kernels", [
      ["Compiled", `${amount(kernels.compiles_per_s)}/s`],
      ["Compilation P95", latency(kernels.compile_p95_s)],
      ["Load P95", latency(kernels.load_p95_s)],
      ["Cache hits", `${amount(kernels.cache_hits_per_s)}/s`],
      ["Cache misses", `${amount(kernels.cache_misses_per_s)}/s`],
    ]],
    ["Snapshots", [
      ["In progress", amount(snapshots.in_progress)],
      ["Captured", `${amount(snapshots.captures_per_s)}/s`],
      ["Capture P95", latency(snapshots.capture_p95_s)],
      ["On the cache's disk", yes(snapshots.same_disk_as_cache)],
    ]],
    ["Disk of the cache", [
      ["Busy", share(disk.busy_ratio)],
      ["Reads", `${bytes(disk.read_bytes_per_s)}${disk.read_bytes_per_s === null ? "" : "/s"}`],
      ["Writes", `${bytes(disk.write_bytes_per_s)}${disk.write_bytes_per_s === null ? "" : "/s"}`],
      ["Free", bytes(disk.free_bytes)],
    ]],
    ...found.gpus.map((gpu) => [`GPU ${name(gpu.device)}`, [
      ["Temperature", gpu.temperature_celsius === null ? NOTHING : `${amount(gpu.temperature_celsius)} °C`],
      ["Utilization", share(gpu.utilization_ratio)],
      ["Clocks slowed by", gpu.throttle_reasons.length ? gpu.throttle_reasons.map(name).join(", ") : "nothing", gpu.throttle_reasons.length ? "warn" : null],
      ["ECC errors", amount(gpu.ecc_errors), gpu.ecc_errors > 0 ? "bad" : null],
    ]]),
  ];
  const place = by("facts");
  if (place.children.length !== groups.length) {
    place.replaceChildren(...groups.map(() => make("div", { class: "panel" }, make("h3"), make("dl", { class: "lines" }))));
  }
  groups.forEach(([title, lines], index) => {
    const [heading, list] = place.children[index].children;
    setText(heading, title);
    setLines(list, lines);
  });
}
