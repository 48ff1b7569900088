// The list of exchanges: the newest first, as many as the inspector keeps.

import {call, duration, h} from "./dom.js";

const MOST = 500;

export class Exchanges {
  constructor(list) {
    this.list = list;
    this.rows = new Map();
    this.summaries = new Map();
    this.waiting = new Map();
    this.paused = false;
    this.selected = null;
    this.find = h("input", {
      type: "search", id: "find", placeholder: "Find: path, status, plugin …", "aria-label": "Find",
      autocomplete: "off", spellcheck: "false", oninput: () => this.filter(),
    });
    this.failed = h("input", {type: "checkbox", id: "failed", onchange: () => this.filter()});
    this.pause = h("button", {type: "button", id: "pause", "aria-pressed": "false", onclick: () => this.toggle()}, "Pause");
    this.clear = h("button", {type: "button", onclick: () => call("DELETE", "/api/exchanges").catch(() => null)}, "Clear");
    this.tools = h("div", {class: "tools"}, [
      this.find,
      h("label", {class: "check"}, [this.failed, " failed only"]),
      this.pause,
      this.clear,
    ]);
    this.items = h("ol", {class: "rows", id: "rows"});
    this.empty = h("p", {class: "empty"}, "No exchanges yet. Send one with ", h("a", {href: "#/send"}, "Send"),
      ", or with curl to the gateway.");
  }

  show() {
    this.list.replaceChildren(this.tools, this.empty, this.items);
  }

  forget(kept) {
    for (const number of [...this.summaries.keys()]) {
      if (!kept.has(number)) this.remove(number);
    }
  }

  update(summaries) {
    if (this.paused) {
      for (const one of summaries) {
        if (this.rows.has(one.number)) this.put(one);
        else this.waiting.set(one.number, one);
      }
      this.pause.textContent = this.waiting.size ? `Go on (${this.waiting.size})` : "Go on";
    } else {
      for (const one of summaries) this.put(one);
    }
    this.trim();
  }

  put(one) {
    this.summaries.set(one.number, one);
    const old = this.rows.get(one.number);
    const row = this.row(one);
    this.rows.set(one.number, row);
    if (old) {
      const focused = old.contains(document.activeElement);
      old.replaceWith(row);
      if (focused) row.firstChild.focus({preventScroll: true});
    } else {
      this.items.prepend(row);
    }
    this.empty.hidden = true;
  }

  row(one) {
    const kind = one.open ? "open" : one.failed || one.status >= 500 ? "bad" : one.status >= 400 ? "warn" : "good";
    const link = h("a", {
      href: `#/exchanges/${one.number}`, class: "row",
      "aria-current": one.number === this.selected ? "true" : null,
    }, [
      h("span", {class: "method"}, one.method),
      h("span", {class: "target"}, one.target),
      h("span", {class: `status ${kind}`}, one.open ? "…" : String(one.status || "–")),
      h("span", {class: "outcome"}, one.outcome),
      h("span", {class: "time"}, one.open ? "" : duration(one.seconds)),
    ]);
    return h("li", {hidden: !this.matches(one)}, link);
  }

  matches(one) {
    if (this.failed.checked && !one.failed && one.status < 500) return false;
    const text = `${one.method} ${one.target} ${one.status} ${one.outcome} ${one.route ?? ""}`.toLowerCase();
    return this.find.value.toLowerCase().split(/\s+/).every((word) => text.includes(word));
  }

  filter() {
    for (const [number, row] of this.rows) row.hidden = !this.matches(this.summaries.get(number));
  }

  trim() {
    while (this.rows.size > MOST) this.remove(Math.min(...this.rows.keys()));
    while (this.waiting.size > MOST) this.waiting.delete(Math.min(...this.waiting.keys()));
  }

  remove(number) {
    this.rows.get(number)?.remove();
    this.rows.delete(number);
    this.summaries.delete(number);
    this.waiting.delete(number);
    this.empty.hidden = this.rows.size > 0;
  }

  toggle() {
    this.paused = !this.paused;
    this.pause.setAttribute("aria-pressed", String(this.paused));
    this.pause.textContent = this.paused ? "Go on" : "Pause";
    if (!this.paused) {
      const waiting = [...this.waiting.values()];
      this.waiting.clear();
      this.update(waiting);
    }
  }

  select(number) {
    this.rows.get(this.selected)?.firstChild.removeAttribute("aria-current");
    this.selected = number;
    this.rows.get(number)?.firstChild.setAttribute("aria-current", "true");
  }
}
