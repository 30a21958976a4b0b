// A chart of lines over time: a picture with its summary in words, the values under the pointer, and a table.

import { clock, moment, NOTHING } from "./format.js";
import { draw, make, setAttribute, setText } from "./table.js";

const HEIGHT = 176;
const MARGIN = { left: 50, right: 10, top: 10, bottom: 22 };
//: A gap of more than this many samples is drawn as one.
const GAP_SAMPLES = 2.5;
const DECADE_FEWEST = 2;
const TABLE_ROWS = 15;

/**
 * One chart in a <figure> of its own.
 *
 * `series` are {key, label, line}: the sample's field, its name, and the class of its line; `lead` is the key of the
 * one that the summary tells of. `scale` is "log" or "linear", `format` writes a value. `about` says in the caption what is shown.
 */
export class TimeChart {
  #options;
  #svg;
  #plot;
  #cursor;
  #legend;
  #when;
  #table;
  #details;
  #drawn = null;
  #at = null;
  #width = 0;
  figure;

  constructor(options) {
    this.#options = options;
    const { title, about, series } = options;
    this.#plot = draw("g");
    this.#cursor = draw("line", { class: "cursor", visibility: "hidden" });
    this.#svg = draw("svg", { role: "img", height: HEIGHT }, this.#plot, this.#cursor);
    this.#when = make("span", { class: "dim" });
    this.#legend = new Map(series.map(({ key }) => [key, make("b")]));
    const items = series.map(({ key, label, line }) =>
      make("li", {}, swatch(line), `${label} `, this.#legend.get(key)));
    this.#table = make("table");
    this.#details = make("details", {}, make("summary", {}, "As a table"),
      make("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": `${title}: table` }, this.#table));
    this.figure = make("figure", { class: "panel" },
      make("figcaption", {}, make("h3", {}, title), make("p", { class: "dim" }, about)),
      make("div", { class: "plot" }, this.#svg),
      make("ul", { class: "legend" }, ...items, make("li", {}, this.#when)), this.#details);
    this.#svg.addEventListener("pointermove", (event) => this.#point(event));
    this.#svg.addEventListener("pointerleave", () => this.#leave());
    this.#details.addEventListener("toggle", () => this.#tabulate());
    new ResizeObserver(() => this.#resize()).observe(this.#svg.parentElement);
  }

  /** Draw these samples, oldest first, of the last `span_s` before `end` (milliseconds); `target` is a line across. */
  update(samples, end, span_s, target = null) {
    this.#drawn = { samples: samples.map((sample) => ({ ...sample, time: moment(sample.at) })), end, span_s, target };
    this.#redraw();
    this.#tabulate();
    setAttribute(this.#svg, "aria-label", this.#summary());
  }

  #resize() {
    const width = Math.floor(this.#svg.parentElement.clientWidth);
    if (width === this.#width || width <= 0) return;
    this.#width = width;
    setAttribute(this.#svg, "width", String(width));
    setAttribute(this.#svg, "viewBox", `0 0 ${width} ${HEIGHT}`);
    this.#redraw();
  }

  #redraw() {
    if (this.#drawn === null || this.#width === 0) return;
    const { samples, target } = this.#drawn;
    const { series, format } = this.#options;
    const [low, high, ticks] = this.#range();
    const right = this.#width - MARGIN.right;
    const bottom = HEIGHT - MARGIN.bottom;
    const parts = [];
    for (const tick of ticks) {
      const y = this.#y(tick, low, high);
      parts.push(draw("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y, y2: y }));
      parts.push(draw("text", { class: "tick end", x: MARGIN.left - 6, y: y + 4 }, format(tick)));
    }
    for (const [text, part, side] of this.#times()) {
      parts.push(draw("text", { class: `tick ${side}`, x: MARGIN.left + part * (right - MARGIN.left), y: HEIGHT - 6 }, text));
    }
    if (target !== null) {
      const y = this.#y(target, low, high);
      parts.push(draw("line", { class: "target", x1: MARGIN.left, x2: right, y1: y, y2: y }));
      parts.push(draw("text", { class: "target-name start", x: MARGIN.left + 4, y: y - 4 }, `target ${format(target)}`));
    }
    for (const { key, line, isArea } of series) {
      for (const piece of this.#pieces(key)) {
        const points = piece.map((sample) => `${round(this.#x(sample.time))} ${round(this.#y(sample[key], low, high))}`);
        const path = `M${points.join("L")}`;
        if (isArea) {
          const [first, last] = [piece[0], piece.at(-1)].map((sample) => round(this.#x(sample.time)));
          parts.push(draw("path", { class: `area ${line}`, d: `${path}L${last} ${bottom}L${first} ${bottom}Z` }));
        }
        parts.push(draw("path", { class: `line ${line}`, d: piece.length > 1 ? path : `${path}h2` }));
      }
    }
    if (!samples.some((sample) => series.some(({ key }) => this.#shows(sample[key])))) {
      parts.push(draw("text", { class: "tick middle", x: (MARGIN.left + right) / 2, y: HEIGHT / 2 }, "no data"));
    }
    this.#plot.replaceChildren(...parts);
    this.#tell();
  }

  // What can be drawn: on a scale of decades, zero cannot.
  #shows(value) {
    return typeof value === "number" && (this.#options.scale !== "log" || value > 0);
  }

  #x(time) {
    const { end, span_s } = this.#drawn;
    const part = 1 - (end - time) / (span_s * 1000);
    return MARGIN.left + Math.min(1, Math.max(0, part)) * (this.#width - MARGIN.right - MARGIN.left);
  }

  #y(value, low, high) {
    const part = this.#options.scale === "log"
      ? Math.log10(value / low) / Math.log10(high / low)
      : (value - low) / (high - low);
    return HEIGHT - MARGIN.bottom - Math.min(1, Math.max(0, part)) * (HEIGHT - MARGIN.bottom - MARGIN.top);
  }

  // The lowest and the highest value of the axis, and where it has names.
  #range() {
    const { samples, target } = this.#drawn;
    const { series, scale, fewest = 1 } = this.#options;
    const values = samples.flatMap((sample) => series.map(({ key }) => sample[key])).filter((v) => this.#shows(v));
    if (target !== null) values.push(target);
    if (scale === "log") {
      let first = Math.floor(Math.log10(Math.min(...values, 1e-4)));
      let last = Math.ceil(Math.log10(Math.max(...values, 1e-5)));
      if (last - first < DECADE_FEWEST) last = first + DECADE_FEWEST;
      first = Math.max(first, last - 9);
      const step = Math.ceil((last - first) / 5);
      const ticks = [];
      for (let decade = first; decade <= last; decade += step) ticks.push(Number(`1e${decade}`));
      return [Number(`1e${first}`), Number(`1e${last}`), ticks];
    }
    const most = Math.max(fewest, ...values);
    const rough = most / 4;
    const magnitude = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * magnitude).find((size) => size >= rough);
    const ticks = [];
    for (let index = 0; index * step < most + step * 0.999; index += 1) ticks.push(index * step);
    return [0, ticks.at(-1), ticks];
  }

  // Names on the axis of time: [text, part of the width, its anchor].
  #times() {
    const { span_s } = this.#drawn;
    const minutes = span_s / 60;
    const name = (part) => (minutes >= 3 ? `−${Number((minutes * part).toFixed(1))} min` : `−${Math.round(span_s * part)} s`);
    return [[name(1), 0, "start"], [name(2 / 3), 1 / 3, "middle"], [name(1 / 3), 2 / 3, "middle"], ["now", 1, "end"]];
  }

  // The samples of a line, apart where values are missing.
  #pieces(key) {
    const { samples } = this.#drawn;
    const steps = samples.slice(1).map((sample, index) => sample.time - samples[index].time).sort((a, b) => a - b);
    const longest = (steps[steps.length >> 1] ?? 0) * GAP_SAMPLES;
    const pieces = [];
    let last = null;
    for (const sample of samples) {
      if (sample.time === null || !this.#shows(sample[key])) {
        last = null;
        continue;
      }
      if (last === null || sample.time - last.time > longest) pieces.push([]);
      pieces.at(-1).push(sample);
      last = sample;
    }
    return pieces;
  }

  #point(event) {
    if (this.#drawn === null || this.#drawn.samples.length === 0) return;
    const left = event.clientX - this.#svg.getBoundingClientRect().left;
    const away = (sample) => Math.abs(this.#x(sample.time) - left);
    this.#at = this.#drawn.samples.reduce((best, sample) => (away(sample) < away(best) ? sample : best)).time;
    this.#tell();
  }

  #leave() {
    this.#at = null;
    this.#tell();
  }

  // The legend's values: of the moment under the pointer, else the newest.
  #tell() {
    const { samples } = this.#drawn ?? { samples: [] };
    const pointed = this.#at === null ? undefined : samples.find((sample) => sample.time === this.#at);
    const shown = pointed ?? samples.at(-1);
    for (const { key } of this.#options.series) {
      setText(this.#legend.get(key), shown === undefined ? NOTHING : this.#options.format(shown[key]));
    }
    setText(this.#when, pointed === undefined ? "now" : `at ${clock(pointed.time)}`);
    setAttribute(this.#cursor, "visibility", pointed === undefined ? "hidden" : "visible");
    if (pointed !== undefined) {
      const x = String(round(this.#x(pointed.time)));
      for (const [name, value] of [["x1", x], ["x2", x], ["y1", String(MARGIN.top)], ["y2", String(HEIGHT - MARGIN.bottom)]]) {
        setAttribute(this.#cursor, name, value);
      }
    }
  }

  #summary() {
    const { samples, target, span_s } = this.#drawn;
    const { title, lead, series, format } = this.#options;
    const { key, label } = series.find((one) => one.key === lead);
    const values = samples.map((sample) => sample[key]).filter((value) => typeof value === "number");
    if (values.length === 0) return `${title}: no data.`;
    const last = samples.at(-1)[key];
    const above = target === null ? 0 : values.filter((value) => value > target).length;
    const judged = target === null ? "" : above === 0
      ? ` It was never above the target of ${format(target)}.`
      : ` It was above the target of ${format(target)} in ${above} of ${values.length} samples.`;
    return `${title} over the last ${Math.round(span_s / 60)} minutes: ${label} is ${format(last)} now, at least `
      + `${format(Math.min(...values))} and at most ${format(Math.max(...values))}.${judged}`;
  }

  // The highest of each stretch of time, newest first.
  #tabulate() {
    if (!this.#details.open || this.#drawn === null) return;
    const { samples, end, span_s } = this.#drawn;
    const { title, series, format } = this.#options;
    const step = (span_s * 1000) / TABLE_ROWS;
    const rows = [];
    for (let until = end; until > end - span_s * 1000 + 1; until -= step) {
      const within = samples.filter(({ time }) => time > until - step && time <= until);
      if (within.length === 0) continue;
      const cells = series.map(({ key }) => {
        const values = within.map((sample) => sample[key]).filter((value) => typeof value === "number");
        return make("td", { class: "number" }, values.length ? format(Math.max(...values)) : NOTHING);
      });
      rows.push(make("tr", {}, make("th", { scope: "row" }, clock(until)), ...cells));
    }
    const names = series.map(({ label }) => make("th", { scope: "col", class: "number" }, label));
    this.#table.replaceChildren(
      make("caption", {}, `${title}: the highest of each ${Math.round(step / 1000)} s before a time, newest first`),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Until"), ...names)), make("tbody", {}, ...rows));
  }
}

const round = (value) => Math.round(value * 10) / 10;

const swatch = (line) =>
  draw("svg", { class: "swatch", width: 22, height: 8, "aria-hidden": "true" },
    draw("line", { class: `line ${line}`, x1: 1, x2: 21, y1: 4, y2: 4 }));
