// A request to be sent to the gateway: a new one, or one that was seen, edited.

import {alertLine, bytes, call, h} from "./dom.js";

const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
const OWN = ["content-length", "connection", "transfer-encoding"];
const EMPTY = {method: "GET", target: "/", headers: [], body: {text: "", length: 0}, raw: null};

export function headersToText(headers) {
  return headers.filter(([name]) => !OWN.includes(name.toLowerCase())).map(([name, value]) => `${name}: ${value}`).join("\n");
}

/** Names and values of lines `Name: value`. Throws on a line that is none. */
export function textToHeaders(text) {
  return text.split("\n").filter((line) => line.trim()).map((line, index) => {
    const at = line.indexOf(":");
    if (at < 1) throw new Error(`headers, line ${index + 1}: expected "Name: value", got "${line}"`);
    return [line.slice(0, at).trim(), line.slice(at + 1).trim()];
  });
}

/** The form. `seen` is the request of an exchange, or null; `sent` is called with the number of the new exchange. */
export function composer(seen, sent) {
  const {method: verb, target, headers, body, raw} = seen ?? EMPTY;
  const method = h("input", {id: "method", list: "methods", value: verb, required: true, autocomplete: "off", spellcheck: "false"});
  const where = h("input", {id: "target", value: target, required: true, autocomplete: "off", spellcheck: "false"});
  const fields = h("textarea", {id: "headers", rows: Math.min(14, headers.length + 3), spellcheck: "false", value: headersToText(headers)});
  const content = h("textarea", {id: "body", rows: 6, spellcheck: "false", value: raw === null ? body.text : ""});
  const keepRaw = raw === null ? null : h("input", {type: "checkbox", id: "raw", checked: true, onchange: () => {
    content.disabled = keepRaw.checked;
  }});
  content.disabled = keepRaw !== null;
  const {line, tell} = alertLine();
  const button = h("button", {class: "first", id: "send"}, "Send");
  const cut = raw === null && new TextEncoder().encode(body.text).length < body.length;

  async function send(event) {
    event.preventDefault();
    tell(null);
    button.disabled = true;
    try {
      const request = {method: method.value.trim(), target: where.value.trim(), headers: textToHeaders(fields.value)};
      if (keepRaw?.checked) request.raw = raw;
      else request.body = content.value;
      const {exchange} = await call("POST", "/api/send", request);
      sent(exchange);
    } catch (error) {
      tell(error);
    } finally {
      button.disabled = false;
    }
  }

  return h("form", {class: "form", id: "composer", onsubmit: send}, [
    h("h1", {tabindex: "-1", id: "title"}, seen ? "Edit and send again" : "Send a request"),
    h("datalist", {id: "methods"}, METHODS.map((name) => h("option", {value: name}))),
    h("div", {class: "pair"}, [
      h("label", {for: "method"}, ["Method", method]),
      h("label", {for: "target"}, ["Path and query", where]),
    ]),
    h("label", {for: "headers"}, ["Headers, one a line", fields]),
    h("label", {for: "body"}, ["Body", content]),
    keepRaw ? h("label", {class: "check"}, [keepRaw, ` send the ${bytes(body.length)} that were seen, which are no text`]) : null,
    cut ? h("p", {class: "note"}, `The body had ${bytes(body.length)}; only what stands here was kept, and is sent.`) : null,
    h("p", {class: "quiet"}, "Content-Length and Connection are added. Without a Host header it is the gateway's."),
    h("div", {class: "actions"}, [button]),
    line,
  ]);
}
