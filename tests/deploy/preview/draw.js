// Panels as SVG and text. A series is {name, points: [[milliseconds, value], ...]}, without points that are no numbers.

import {formatter, shown} from "./grafana.js";

const PALETTE = (
  "#7EB26D #EAB839 #6ED0E0 #EF843C #E24D42 #1F78C1 #BA43A9 #705DA0 #508642 #CCA300 #447EBC #C15C17 #890F02 #0A437C"
).split(" ");
const SVG = "http://www.w3.org/2000/svg";
const LEFT = 74; // pixels for the texts of the axes
const BOTTOM = 20;

/** An element with its attributes and children. */
export function h(name, attributes = {}, ...children) {
  return build(document.createElement(name), attributes, children);
}

const s = (name, attributes, ...children) => build(document.createElementNS(SVG, name), attributes, children);

function build(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** A line through points; where more than a step and a half is missing, it is broken. */
function line(points, x, y, step) {
  return points
    .map(([time, value], at) => {
      const isFirst = at === 0 || time - points[at - 1][0] > step * 1.5;
      const isAlone = isFirst && !(points[at + 1]?.[0] - time <= step * 1.5);
      const to = `${x(time).toFixed(1)} ${y(value).toFixed(1)}`;
      return `${isFirst ? "M" : "L"}${to}${isAlone ? "h1.5" : ""}`;
    })
    .join("");
}

/** Round values from one to another, about four of them. */
function ticks(from, to, unit) {
  const rough = (to - from) / 4;
  if (unit === "bytes") return every(2 ** Math.ceil(Math.log2(rough)), from, to);
  const power = 10 ** Math.floor(Math.log10(rough));
  return every(power * [1, 2, 5, 10].find((one) => one * power >= rough * 0.999), from, to);
}

function every(distance, from, to) {
  const count = Math.ceil((to - from) / distance - 1e-9);
  return Array.from({length: count + 1}, (_, at) => from + at * distance);
}

export function timeseries(body, panel, series, {from, to, step}) {
  const {unit, min} = panel.fieldConfig.defaults;
  const format = formatter(unit);
  const legend = h("ul", {class: "legend"});
  const plot = s("svg", {class: "plot"});
  body.append(plot, legend);
  series.forEach(({name}, at) => {
    const color = PALETTE[at % PALETTE.length];
    legend.append(h("li", {}, h("i", {style: `background:${color}`}), name));
  });
  const {width, height} = plot.getBoundingClientRect();
  const values = series.flatMap((one) => one.points.map(([, value]) => value));
  const low = Math.min(min ?? Infinity, ...values);
  const levels = ticks(low, Math.max(...values, low) > low ? Math.max(...values) : low + 1, unit);
  const high = levels.at(-1);
  const x = (time) => LEFT + ((time - from) / (to - from)) * (width - LEFT - 8);
  const y = (value) => height - BOTTOM - ((value - low) / (high - low)) * (height - BOTTOM - 8);
  for (const level of levels) {
    plot.append(
      s("line", {class: "grid", x1: LEFT, x2: width - 8, y1: y(level), y2: y(level)}),
      s("text", {x: LEFT - 8, y: y(level) + 4, "text-anchor": "end"}, format(level)),
    );
  }
  const between = Math.max((to - from) / 6, 1000);
  for (let time = Math.ceil(from / between) * between; time <= to; time += between) {
    const text = new Date(time).toLocaleTimeString("en-GB");
    plot.append(s("text", {x: x(time), y: height - 4, "text-anchor": "middle"}, text));
  }
  series.forEach(({points}, at) => {
    plot.append(s("path", {stroke: PALETTE[at % PALETTE.length], d: line(points, x, y, step)}));
  });
}

export function stat(body, panel, series, {from, to, step}) {
  const {reduceOptions, colorMode, graphMode} = panel.options;
  if (String(reduceOptions.calcs) !== "lastNotNull") throw new Error(`the preview cannot reduce by ${reduceOptions.calcs}`);
  const values = h("div", {class: "values"});
  body.append(values);
  for (const {name, points} of series) {
    const {text, color} = shown(points.at(-1)[1], panel.fieldConfig.defaults);
    const style = colorMode === "none" ? "" : `color:${color}`;
    values.append(h("div", {class: "value"}, series.length > 1 ? name : "", h("b", {style}, text)));
  }
  if (graphMode !== "area") return;
  const spark = s("svg", {class: "spark"});
  body.append(spark);
  const {width, height} = spark.getBoundingClientRect();
  const high = Math.max(...series.flatMap((one) => one.points.map(([, value]) => value))) || 1;
  const x = (time) => ((time - from) / (to - from)) * width;
  const y = (value) => height - 1 - (value / high) * (height - 2);
  for (const {points} of series) spark.append(s("path", {d: line(points, x, y, step)}));
}
