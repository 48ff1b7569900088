// JSON Schemas of confs: read for a table, and for a conf to begin with.

import {h} from "./dom.js";

function resolved(schema, root) {
  for (let depth = 0; schema?.$ref && depth < 10; depth++) {
    schema = schema.$ref.replace(/^#\//, "").split("/").reduce((at, key) => at?.[key], root);
  }
  return schema ?? {};
}

function typeOf(schema, root) {
  const one = resolved(schema, root);
  if (one.enum) return one.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (one.const !== undefined) return JSON.stringify(one.const);
  if (one.anyOf) return one.anyOf.map((each) => typeOf(each, root)).join(" | ");
  if (one.type === "array") return one.items ? `array of ${typeOf(one.items, root)}` : "array";
  return Array.isArray(one.type) ? one.type.join(" | ") : one.type ?? "anything";
}

const LIMITS = {
  minimum: "≥", maximum: "≤", exclusiveMinimum: ">", exclusiveMaximum: "<", minLength: "length ≥", maxLength: "length ≤",
  pattern: "matches", minItems: "items ≥", maxItems: "items ≤",
};

function limits(schema, root) {
  const one = resolved(schema, root);
  return Object.entries(LIMITS).filter(([key]) => key in one).map(([key, word]) => `${word} ${one[key]}`).join(", ");
}

/** The fields of a conf, one below the other. */
export function schemaView(schema) {
  const top = resolved(schema, schema);
  const fields = Object.entries(top.properties ?? {});
  return [
    top.description ? h("p", {}, top.description) : null,
    fields.length
      ? h("dl", {class: "fields"}, fields.map(([name, field]) => [
        h("dt", {}, [
          h("code", {}, name), " ", h("span", {class: "quiet"}, typeOf(field, schema)), " ",
          (top.required ?? []).includes(name) ? h("span", {class: "badge"}, "required") : null,
        ]),
        h("dd", {}, [
          [resolved(field, schema).description, limits(field, schema),
            "default" in field ? `default ${JSON.stringify(field.default)}` : ""].filter(Boolean).join("; "),
        ]),
      ]))
      : h("p", {class: "quiet"}, typeOf(schema, schema)),
    h("details", {}, [h("summary", {}, "JSON Schema"), h("pre", {class: "code", tabindex: 0}, JSON.stringify(schema, null, 2))]),
  ];
}

/** A value to begin with: defaults, and for what is required something of its type. */
export function example(schema, root = schema, depth = 0) {
  const one = resolved(schema, root);
  if ("default" in (schema ?? {})) return schema.default;
  if (one.enum) return one.enum[0];
  if (one.const !== undefined) return one.const;
  if (one.anyOf) return example(one.anyOf[0], root, depth + 1);
  if (one.type === "object" || one.properties) {
    const wanted = Object.entries(one.properties ?? {}).filter(([name]) => (one.required ?? []).includes(name));
    return depth > 5 ? {} : Object.fromEntries(wanted.map(([name, field]) => [name, example(field, root, depth + 1)]));
  }
  return {string: "", integer: one.minimum ?? 0, number: one.minimum ?? 0, boolean: false, array: [], null: null}[one.type] ?? {};
}
