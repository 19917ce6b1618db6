// Helpers that make elements; text is never read as HTML.
import { strings } from "./strings.js";

export const byId = id => document.getElementById(id);
export const formatScore = score => score.toFixed(2);
const COLORS = 8;
const FAINTEST_SCALE = 0.02; // effects below are noise: they stay pale
const FULL = 55; // percent of color of the word with the largest effect

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

export function fillSelect(select, options) {
  select.replaceChildren(...options.map(([value, name]) => {
    const option = element("option", "", name);
    option.value = value;
    return option;
  }));
}

// Text of all elements that are marked in the HTML.
export function fillStrings() {
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = strings[node.dataset.text];
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", strings[node.dataset.label]);
  document.title = `carat – ${strings.title}`;
}

// A list of bars with a mark at each threshold, in the order of the labels.
export function makeBars(prediction, thresholds, run) {
  const list = element("ul", "scores");
  list.setAttribute("aria-label", strings.scoresOf(run));
  Object.entries(thresholds).forEach(([label, threshold], i) => {
    const score = prediction.scores[label];
    const isPresent = prediction.labels.includes(label);
    const row = element("li", isPresent ? "is-present" : "");
    const name = element("span", "name", label);
    const source = prediction.attribution?.[label];
    name.title = source ? `${label}, ${strings.from(source)}` : label;
    const meter = element("span", "meter");
    meter.style.setProperty("--color", `var(--c${i % COLORS})`);
    meter.title = strings.threshold(formatScore(threshold));
    const fill = element("span", "fill");
    fill.style.width = `${100 * score}%`;
    const limit = element("span", "limit");
    limit.style.left = `${100 * threshold}%`;
    meter.append(fill, limit);
    const isUnsure = prediction.decisions?.[label] === "unsure";
    const sign = element("span", "sign", isUnsure ? "?" : isPresent ? "✓" : "");
    if (isUnsure || isPresent) {
      sign.setAttribute("role", "img");
      sign.setAttribute("aria-label", isUnsure ? strings.unsure : strings.present);
      sign.title = isUnsure ? strings.unsure : strings.present;
    }
    row.append(name, meter, element("span", "value", formatScore(score)), sign);
    list.append(row);
  });
  return list;
}

// A text whose words are colored by their effect on the score of a label.
export function makeText(prediction, label) {
  const said = element("p", "said");
  said.dir = "auto";
  const characters = [...prediction.text]; // positions count characters, not units of UTF-16
  const drops = prediction.effects.map(effect => effect.drops[label] ?? 0);
  const largest = Math.max(FAINTEST_SCALE, ...drops.map(Math.abs));
  let at = 0;
  prediction.effects.forEach(({ start, end }, i) => {
    said.append(characters.slice(at, start).join(""));
    said.append(makeWord(characters.slice(start, end).join(""), drops[i], largest, label));
    at = end;
  });
  said.append(characters.slice(at).join(""));
  return said;
}

function makeWord(text, drop, largest, label) {
  const word = element("span", "word", text);
  if (Math.abs(drop) < 0.1 * largest) return word;
  word.classList.add(drop > 0 ? "up" : "down");
  word.style.setProperty("--strength", `${Math.round(FULL * Math.min(Math.abs(drop) / largest, 1))}%`);
  word.title = strings.effect(label, Math.abs(drop).toFixed(3), drop > 0 ? strings.lower : strings.higher);
  return word;
}
