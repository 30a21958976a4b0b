// Numbers as people read them. Whatever is null or no number is a dash: there is no data.

export const NOTHING = "–";

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

// Three digits that count, without zeros at the end: 1.24, 12.4, 124.
const digits = (value) => (value >= 999.5 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3))));

const SHORT = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]];

/** Seconds of a latency: 12.4 µs, 3.1 ms. */
export function latency(seconds) {
  if (!isNumber(seconds)) return NOTHING;
  if (seconds === 0) return "0 s";
  // What would be shown as 1,000 of a unit is 1 of the next.
  const [size, unit] = SHORT.find(([size]) => seconds >= size * 0.9995) ?? SHORT.at(-1);
  return `${digits(seconds / size)} ${unit}`;
}

const LONG = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

/** Seconds of an age: 3 h 12 min. Its two largest units. */
export function age(seconds) {
  if (!isNumber(seconds)) return NOTHING;
  const whole = Math.max(0, Math.floor(seconds));
  const first = LONG.findIndex(([size]) => whole >= size);
  if (first < 0 || first === LONG.length - 1) return `${whole} s`;
  const [[size, unit], [nextSize, nextUnit]] = LONG.slice(first, first + 2);
  const rest = Math.floor((whole % size) / nextSize);
  return `${Math.floor(whole / size)} ${unit}${rest ? ` ${rest} ${nextUnit}` : ""}`;
}

const THOUSANDS = [[1e9, " G"], [1e6, " M"], [1e4, " k"]];

/** A number, or a number a second: 0.4, 812, 9,120, 12.4 k. */
export function amount(value) {
  if (!isNumber(value)) return NOTHING;
  for (const [size, unit] of THOUSANDS) {
    if (value >= size * 0.9995) return `${digits(value / (size === 1e4 ? 1e3 : size))}${unit}`;
  }
  return value < 0.01 ? (value > 0 ? "<0.01" : "0") : digits(value);
}

/** A part of one as a percentage. */
export function share(value) {
  if (!isNumber(value)) return NOTHING;
  const percent = value * 100;
  if (percent > 0 && percent < 0.1) return "<0.1 %";
  // Near the whole what is missing counts: 99.95 is not 100.
  if (percent > 99 && percent < 100) return percent > 99.99 ? ">99.99 %" : `${Number(percent.toFixed(2))} %`;
  return `${percent < 10 ? Number(percent.toFixed(1)) : Math.round(percent)} %`;
}

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Bytes in units of 1,024. */
export function bytes(value) {
  if (!isNumber(value)) return NOTHING;
  let step = 0;
  while (value >= 1023.5 && step < BINARY.length - 1) {
    value /= 1024;
    step += 1;
  }
  return `${digits(value)} ${BINARY[step]}`;
}

/** A value in the unit that the document names. */
export function inUnit(value, unit) {
  if (unit === "s" || unit === "seconds") return latency(value);
  if (unit === "ratio") return share(value);
  return isNumber(value) ? `${amount(value)} ${unit ?? ""}`.trim() : NOTHING;
}

/** Milliseconds since 1970 of a time that is RFC 3339 text or seconds since 1970; null for what is neither. */
export function moment(value) {
  const found = isNumber(value) ? value * 1000 : Date.parse(value);
  return Number.isNaN(found) ? null : found;
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DATE = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });

/** The time of the day, where the reader is. */
export const clock = (milliseconds) => (milliseconds === null ? NOTHING : CLOCK.format(milliseconds));

/** Day and time, where the reader is. */
export const date = (milliseconds) => (milliseconds === null ? NOTHING : DATE.format(milliseconds));

/** A count with its noun: 1 tenant, 2 tenants. */
export const counted = (count, noun) => `${amount(count)} ${noun}${count === 1 ? "" : "s"}`;

const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cs}]/gu;
const NAME_LONGEST = 120;

/** A name that a tenant chose, of one line: what would hide, or turn what stands beside it, is written as its number. */
export function name(text) {
  const shown = Array.from(String(text ?? NOTHING).slice(0, 2 * NAME_LONGEST)).slice(0, NAME_LONGEST).join("");
  const end = shown.length < String(text ?? NOTHING).length ? "…" : "";
  return shown.replace(HIDDEN, (found) => `\\u{${found.codePointAt(0).toString(16)}}`) + end;
}
