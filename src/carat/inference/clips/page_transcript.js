// The transcript: one row per segment, with its words colored by what they add to a label's score.
const list = byId("segments");
const wordLabel = byId("word-label");
const filter = byId("filter");
const FAINTEST_SCALE = 0.02; // drops below are noise: they stay pale
const FULL = 55; // percent of color of the word with the largest drop
const NEAR = 40; // rows
const rows = [];
let marked = null;
let spoken = null;

const isListed = index => !rows[index].row.hidden;

function addRow(segment, index) {
  const row = element("li");
  const start = element("div", "start");
  const button = element("button", "time", formatTime(segment.start));
  button.type = "button";
  button.tabIndex = index ? -1 : 0; // one stop for the Tab key; arrows go on from there
  button.setAttribute("aria-label", `Go to ${formatTime(segment.start)}`);
  start.append(button);
  if (segment.speaker) start.append(element("span", "speaker", segment.speaker));
  const body = element("div");
  const said = element("p", "said");
  said.dir = "auto";
  const words = (segment.words ?? []).map(([text, at], k) => {
    const word = element("span", "word", text);
    word.dataset.time = at ?? segment.start;
    said.append(k ? " " : "", word);
    return word;
  });
  if (!words.length) said.append(segment.text || "no speech");
  said.classList.toggle("silent", !words.length && !segment.text);
  const chips = element("div", "chips");
  const made = { row, button, words, chips: makeChips(segment, chips) };
  body.append(said, chips);
  row.append(start, body);
  if (segment.picture) row.append(makeFace(segment.picture));
  row.addEventListener("click", event => {
    const at = event.target.dataset.time;
    seek(at === undefined ? segment.start : Number(at), index);
  });
  rows.push(made);
  return row;
}

function makeChips(segment, chips) {
  const present = [...(segment.labels ?? [])].sort((a, b) => segment.scores[b] - segment.scores[a]);
  const made = new Map();
  for (const label of present) {
    const chip = element("span", "chip");
    const dot = element("span", "dot");
    dot.style.setProperty("--color", `var(${labels[label].color})`);
    chip.append(dot, element("b", "", labels[label].name), ` ${formatScore(segment.scores[label])}`);
    const source = segment.from?.[label];
    if (source) chip.append(element("i", "", ` from ${source}`));
    chips.append(chip);
    made.set(label, chip);
  }
  if (!present.length) {
    const highest = strongest(segment, [...labels.keys()]);
    const detail = highest === null ? "" : ` (highest: ${labels[highest].name} ${formatScore(segment.scores[highest])})`;
    chips.append(element("span", "small", `no label above its threshold${detail}`));
  }
  return made;
}

function makeFace(picture) {
  const figure = element("figure", "face");
  const image = element("img");
  [image.width, image.height] = picture.size;
  image.alt = `Face at ${formatTime(picture.time)}`;
  image.loading = "lazy";
  image.src = picture.source;
  image.dataset.time = picture.time;
  const box = element("span", "box");
  const place = ["left", "top", "width", "height"];
  place.forEach((side, i) => { box.style[side] = `${100 * picture.box[i]}%`; });
  box.dataset.time = picture.time;
  figure.append(image, box);
  return figure;
}

// The label that a segment's words are colored for; null for none.
function labelOfWords(segment) {
  if (wordLabel.value === "strongest") return strongest(segment, segment.labels ?? []);
  return wordLabel.value === "none" ? null : Number(wordLabel.value);
}

function colorWords() {
  const chosenLabels = segments.map(labelOfWords);
  const drops = segments.map((segment, i) => segment.drops?.[chosenLabels[i]] ?? []);
  const largest = drops.flat().reduce((most, drop) => Math.max(most, Math.abs(drop ?? 0)), FAINTEST_SCALE);
  rows.forEach(({ words, chips }, i) => {
    chips.forEach((chip, label) => chip.classList.toggle("is-shown", label === chosenLabels[i] && drops[i].length > 0));
    words.forEach((word, k) => colorWord(word, drops[i][k] ?? 0, largest, labels[chosenLabels[i]]));
  });
}

function colorWord(word, drop, largest, label) {
  const isShown = Math.abs(drop) >= 0.1 * largest;
  word.classList.toggle("up", isShown && drop > 0);
  word.classList.toggle("down", isShown && drop < 0);
  word.style.setProperty("--strength", `${Math.round(FULL * Math.min(Math.abs(drop) / largest, 1))}%`);
  word.title = drop ? `${label.name}: ${Math.abs(drop).toFixed(3)} ${drop > 0 ? "lower" : "higher"} without this word` : "";
}

function markCurrent(isJump) {
  marked?.row.removeAttribute("aria-current");
  if (current === null) {
    marked = null;
    return;
  }
  rows.forEach(({ button }) => { button.tabIndex = -1; });
  marked = rows[current];
  marked.row.setAttribute("aria-current", "true");
  marked.button.tabIndex = 0;
  if (list.contains(document.activeElement)) marked.button.focus({ preventScroll: true });
  if (isJump || !player?.paused) reveal();
}

// Scroll the list, not the page, so that the current row can be seen. Rows that were never in view have no height
// of their own yet; those around get it first.
function reveal() {
  for (const { row } of rows.slice(Math.max(current - NEAR, 0), current + NEAR)) row.classList.add("near");
  const frame = list.getBoundingClientRect();
  const place = rows[current].row.getBoundingClientRect();
  if (place.top >= frame.top && place.bottom <= frame.bottom) return;
  list.scrollTop += place.top - frame.top - Math.min(60, Math.max(0, (frame.height - place.height) / 3));
}

function markWord() {
  const words = current === null ? [] : segments[current].words ?? [];
  const index = words.findIndex(([, start, end]) => start !== null && start <= time && time < end);
  const word = index < 0 ? null : rows[current].words[index];
  if (word === spoken) return;
  spoken?.classList.remove("spoken");
  word?.classList.add("spoken");
  spoken = word;
}

function fill(select, options, onChange) {
  for (const [value, name] of options) {
    const option = element("option", "", name);
    option.value = value;
    select.append(option);
  }
  select.addEventListener("change", onChange);
}

function filterRows() {
  const label = Number(filter.value);
  segments.forEach((segment, i) => {
    const any = (segment.labels ?? []).length > 0;
    rows[i].row.hidden = filter.value === "any" ? !any : filter.value !== "all" && !isPresent(segment, label);
  });
  byId("nothing").hidden = segments.some((_, i) => isListed(i));
}

function prepareTranscript() {
  if (!segments.length) return;
  list.append(...segments.map(addRow));
  const names = labels.map((label, i) => [i, label.name]);
  const count = i => segments.filter(segment => isPresent(segment, i)).length;
  fill(filter, [["all", "all"], ["any", "with any label"], ...names.map(([i, name]) => [i, `${name} (${count(i)})`])], filterRows);
  if (!wordLabel) return;
  fill(wordLabel, [["strongest", "the strongest label"], ...names, ["none", "no label"]], colorWords);
  colorWords();
}

prepareTimeline();
prepareTranscript();
prepareKeys();
if (player) preparePlayer();
moveTo(0);
