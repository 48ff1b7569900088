// What Grafana does with a dashboard before and after it asks Prometheus: times, steps, variables, names, units.
// Whatever is not known here is an error, so that the dashboard cannot use what the preview would show wrongly.

const UNITS = {ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000};
const STEPS = [
  1, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000,
  900_000, 1_200_000, 1_800_000, 3_600_000, 7_200_000, 10_800_000, 21_600_000, 43_200_000, 86_400_000,
]; // milliseconds that a step may have: the nearest is taken

/** A duration as "15s", in milliseconds. */
export function milliseconds(text) {
  const [, number, unit] = /^(\d+)(ms|[smhd])$/.exec(text) ?? [];
  if (!unit) throw new Error(`expected a duration as 15s, got ${text}`);
  return number * UNITS[unit];
}

/** A time as "now-1h", in milliseconds since 1970. */
export function moment(text, now) {
  if (text === "now") return now;
  if (!text.startsWith("now-")) throw new Error(`expected a time as now-1h, got ${text}`);
  return now - milliseconds(text.slice(4));
}

/** The milliseconds between two points: as many points as the panel has pixels, and no more than are scraped. */
export function step(range, pixels, scraped) {
  const wanted = range / pixels;
  const nearest = STEPS.reduce((best, one) => (Math.abs(one - wanted) < Math.abs(best - wanted) ? one : best));
  return Math.max(nearest, scraped);
}

/** What stands for $__interval and its like. */
export function macros(range, interval, scraped) {
  return {
    __interval: `${interval}ms`,
    __rate_interval: `${Math.max(interval + scraped, 4 * scraped)}ms`,
    __range: `${Math.round(range / 1000)}s`,
  };
}

/** What stands for a variable of which some values are chosen; no value is "All". */
export function interpolated(variable, chosen, values) {
  const all = !chosen.length;
  if (all && variable.allValue) return variable.allValue;
  const escaped = (all ? values : chosen).map((value) => value.replace(/[\\^$*+?.()|[\]{}]/g, "\\\\$&"));
  return escaped.length === 1 ? escaped[0] : `(${escaped.join("|")})`;
}

/** A query with everything filled in. */
export function filled(expression, replacements) {
  return expression.replace(/\$(?:\{(\w+)\}|(\w+))/g, (whole, braced, bare) => {
    const value = replacements[braced ?? bare];
    if (value === undefined) throw new Error(`nothing stands for ${whole}`);
    return value;
  });
}

/** A series' name in the legend. */
export function seriesName(format, labels) {
  return format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => labels[label] ?? "").trim();
}

const digits = (value) => String(Number(value.toPrecision(3)));
const scaled = (sizes, base, units) => (value) => {
  let at = 0;
  while (Math.abs(value) >= base && at < units.length - 1) {
    value /= base;
    at += 1;
  }
  return `${digits(value)}${units[at]}${sizes}`;
};
const seconds = (value) => {
  const size = Math.abs(value);
  if (size === 0) return "0 s";
  if (size < 1e-3) return `${digits(value * 1e6)} µs`;
  if (size < 1) return `${digits(value * 1e3)} ms`;
  return size < 60 ? `${digits(value)} s` : `${digits(value / 60)} mins`;
};
const FORMATS = {
  none: digits,
  bytes: scaled("", 1024, [" B", " KiB", " MiB", " GiB", " TiB"]),
  percentunit: (value) => `${digits(value * 100)}%`,
  reqps: scaled(" req/s", 1000, ["", "K", "M"]),
  s: seconds,
};

/** What writes values of a unit. */
export function formatter(unit = "none") {
  const format = FORMATS[unit];
  if (!format) throw new Error(`the preview does not know the unit ${unit}`);
  return format;
}

const COLORS = {green: "#73bf69", red: "#f2495c", orange: "#ff9830", yellow: "#fade2a", blue: "#5794f2", text: "#ccccdc"};

/** A value's text and colour, by the field's mappings and thresholds. */
export function shown(value, {unit, decimals, mappings = [], thresholds}) {
  value = decimals === undefined ? value : Number(value.toFixed(decimals));
  const mapping = mappings.find((one) => one.type === "value" && String(value) in one.options)?.options[String(value)];
  const threshold = thresholds?.steps.findLast((one) => one.value === null || value >= one.value);
  const name = mapping?.color ?? threshold?.color ?? "green";
  if (!COLORS[name]) throw new Error(`the preview does not know the colour ${name}`);
  return {text: mapping?.text ?? formatter(unit)(value), color: COLORS[name]};
}
