// Runs the page's modules in Node with a small stand-in for the browser's document; prints what it then shows.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, input] = process.argv.slice(2);
const { runs, answers, text, dialogue } = JSON.parse(input);
const html = readFileSync(`${folder}/index.html`, "utf8");

class Node {
  constructor(tag) {
    Object.assign(this, { tagName: tag.toUpperCase(), children: [], attributes: {}, listeners: {}, dataset: {}, own: "", value: "", files: [] });
    this.hidden = this.checked = this.disabled = false;
    this.className = "";
    this.style = { setProperty: (name, value) => { this.style[name] = value; } };
    this.classList = {
      add: name => { this.className = `${this.className} ${name}`.trim(); },
      toggle() {},
      remove() {},
    };
  }
  get textContent() { return this.own + this.children.map(x => (typeof x === "string" ? x : x.textContent)).join(""); }
  set textContent(value) { this.children = []; this.own = String(value); }
  append(...nodes) { this.children.push(...nodes.filter(node => node !== "")); }
  prepend(...nodes) { this.children.unshift(...nodes); }
  replaceChildren(...nodes) {
    this.own = "";
    this.children = nodes;
    if (this.tagName === "SELECT") this.value = nodes[0]?.value ?? "";
  }
  setAttribute(name, value) { this.attributes[name] = value; }
  removeAttribute(name) { delete this.attributes[name]; }
  addEventListener(kind, listener) { (this.listeners[kind] ??= []).push(listener); }
  dispatch(kind) { return Promise.all((this.listeners[kind] ?? []).map(run => run({ preventDefault() {}, target: this }))); }
  querySelector() { return new Node("button"); }
  focus() {}
  find(test) {
    const inner = this.children.filter(x => typeof x !== "string");
    return [...inner.filter(test), ...inner.flatMap(x => x.find(test))];
  }
}

const byId = new Map();
const marked = [];
for (const [, tag, attributes] of html.matchAll(/<(\w+)([^>]*)>/g)) {
  const node = new Node(tag);
  for (const [, name, value] of attributes.matchAll(/([\w-]+)(?:="([^"]*)")?/g)) {
    if (name === "id") byId.set(value, node);
    if (name === "hidden") node.hidden = true;
    if (name.startsWith("data-")) node.dataset[name.slice(5)] = value;
  }
  marked.push(node);
}
globalThis.document = {
  getElementById: id => byId.get(id) ?? null,
  createElement: tag => new Node(tag),
  querySelectorAll: selector => marked.filter(node => node.dataset[selector.slice(6, -1)] !== undefined),
};
const kept = new Map();
globalThis.sessionStorage = { getItem: name => kept.get(name) ?? null, setItem: (name, value) => kept.set(name, value) };
const sent = [];
globalThis.fetch = async (path, options) => {
  if (options.body) sent.push({ path, ...JSON.parse(options.body) });
  const body = path === "v1/runs" ? { runs } : answers.shift();
  const status = body.status ?? 200;
  return { ok: status < 300, status, json: async () => body };
};

await import(pathToFileURL(`${folder}/app.js`));
await new Promise(resolve => setTimeout(resolve, 20));
const empty = marked.filter(node => node.dataset.text && !node.textContent).map(node => node.dataset.text);
byId.get("text").value = text;
byId.get("dialogue").checked = dialogue;
byId.get("compare").value = runs[1]?.name ?? "";
await byId.get("text-form").dispatch("submit");
const cards = byId.get("text-results").children;
console.log(JSON.stringify({
  empty,
  sent,
  isShown: !byId.get("main").hidden,
  signIn: !byId.get("sign-in").hidden,
  problem: byId.get("problem").textContent,
  about: byId.get("about").textContent,
  cards: cards.map(card => ({
    text: card.find(x => x.className === "said")[0].textContent,
    words: card.find(x => /\bword (up|down)\b/.test(x.className) && x.title).map(x => [x.textContent, x.className]),
    bars: card.find(x => x.tagName === "UL").map(list => list.children.map(row => row.textContent)),
    limits: card.find(x => x.className === "limit").map(x => x.style.left),
    speaker: card.find(x => x.className === "speaker").map(x => x.textContent),
  })),
}));
