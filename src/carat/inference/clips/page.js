"use strict";
const byId = id => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const { labels, segments } = data;
const duration = Math.max(data.duration, 0.01);
const COLORS = 8;
labels.forEach((label, i) => { label.color = `--c${i % COLORS}`; });

// Create an element; text is never read as HTML.
function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function formatTime(seconds, digits = 1) {
  const unit = 10 ** digits;
  const total = Math.round(seconds * unit);
  const whole = Math.floor(total / unit);
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  const two = number => String(number).padStart(2, "0");
  const rest = digits ? `.${String(total % unit).padStart(digits, "0")}` : "";
  return `${hours ? `${hours}:${two(minutes)}` : minutes}:${two(whole % 60)}${rest}`;
}

const formatScore = score => (score === null || score === undefined ? "–" : score.toFixed(2));
const formatRange = segment => `${formatTime(segment.start)} – ${formatTime(segment.end)}`;
const isPresent = (segment, label) => (segment.labels ?? []).includes(label);

// The label with the highest score, among those given.
function strongest(segment, among) {
  const score = label => segment.scores?.[label] ?? -1;
  return among.reduce((best, label) => (best === null || score(label) > score(best) ? label : best), null);
}

// The player: tries each address in turn, then asks for the file.
const player = byId("media");
const sources = [...data.sources];
let isPlayable = Boolean(player);

function nextSource() {
  if (sources.length) {
    player.src = sources.shift();
    return;
  }
  isPlayable = false;
  player.hidden = true;
  byId("chooser").hidden = false;
}

function openChosen(file) {
  if (!file) return;
  if (player.src.startsWith("blob:")) URL.revokeObjectURL(player.src);
  isPlayable = true;
  player.hidden = false;
  player.src = URL.createObjectURL(file);
  player.currentTime = time;
}

function preparePlayer() {
  player.addEventListener("error", () => {
    if (player.src.startsWith("blob:")) byId("reason").textContent = "This browser cannot play that file. Choose another one.";
    nextSource();
  });
  player.addEventListener("loadedmetadata", () => {
    byId("chooser").hidden = true;
    player.classList.toggle("sound", player.tagName === "VIDEO" && player.videoWidth === 0);
  });
  byId("file").addEventListener("change", event => openChosen(event.target.files[0]));
  for (const name of ["timeupdate", "seeking", "seeked", "pause"]) {
    player.addEventListener(name, () => { if (player.readyState) moveTo(player.currentTime); });
  }
  player.addEventListener("play", follow);
  nextSource();
}

function follow() {
  if (player.readyState) moveTo(player.currentTime);
  if (!player.paused && !player.ended) requestAnimationFrame(follow);
}

// The position: where the cursor is, and the segment there.
let time = 0;
let current = null;
let chosen = null; // the segment that the user went to; it stays while others overlap with it

const contains = (segment, at) => segment.start <= at + 0.02 && at < Math.max(segment.end, segment.start + 0.05);

function segmentAt(at) {
  if (chosen !== null && contains(segments[chosen], at)) return chosen;
  chosen = null;
  return segments.findLastIndex(segment => contains(segment, at));
}

function moveTo(at, isJump = false) {
  time = Math.min(Math.max(at, 0), duration);
  const index = segmentAt(time);
  const found = index < 0 ? null : index;
  moveCursor(isJump);
  if (found !== current || isJump) {
    current = found;
    showScores();
    markCurrent(isJump);
    requestDraw();
  }
  markWord();
}

function seek(at, index = null) {
  chosen = index;
  moveTo(at, true);
  if (isPlayable) player.currentTime = time;
}

function step(direction) {
  const rows = segments.map((_, i) => i).filter(isListed);
  const from = current ?? segments.findLastIndex(segment => segment.start <= time);
  const next = direction > 0
    ? rows.find(i => i > from)
    : rows.findLast(i => (current === null ? i <= from : i < from));
  if (next !== undefined) seek(segments[next].start, next);
}

// The scores of the segment at the cursor.
const meters = labels.map(label => {
  const row = element("li");
  const name = element("span", "name", label.name);
  name.title = label.name;
  const meter = element("span", "meter");
  const fill = element("span", "fill");
  meter.style.setProperty("--color", `var(${label.color})`);
  meter.append(fill);
  if (label.threshold !== null) {
    const limit = element("span", "limit");
    limit.style.left = `${100 * Math.min(Math.max(label.threshold, 0), 1)}%`;
    meter.append(limit);
    meter.title = `Threshold ${formatScore(label.threshold)}`;
  }
  const value = element("span", "value");
  const sign = element("span", "sign");
  row.append(name, meter, value, sign);
  byId("scores").append(row);
  return { row, fill, value, sign };
});

function showScores() {
  const segment = current === null ? null : segments[current];
  byId("when").textContent = segment
    ? [`Segment ${current + 1} of ${segments.length}`, formatRange(segment), segment.speaker].filter(Boolean).join(" · ")
    : "No segment here.";
  meters.forEach(({ row, fill, value, sign }, i) => {
    const score = segment?.scores[i] ?? null;
    const present = segment !== null && isPresent(segment, i);
    row.classList.toggle("is-present", present);
    fill.style.width = `${100 * (score ?? 0)}%`;
    value.textContent = formatScore(score);
    sign.textContent = present ? "✓" : "";
    sign.title = present ? "above the threshold" : "";
  });
}

function prepareKeys() {
  const zoomBy = { "+": 2, "=": 2, "-": 0.5, "−": 0.5 };
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, input, video, audio")) return;
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === " ") {
      if (!isPlayable || event.target.closest("button:not(.time)")) return;
      if (player.paused) player.play().catch(() => {});
      else player.pause();
    } else if (direction) {
      if (event.shiftKey) seek(time + direction);
      else step(direction);
    } else if (zoomBy[event.key]) {
      zoomTo(shownSeconds / zoomBy[event.key]);
    } else if (event.key === "0") {
      zoomTo(duration);
    } else if (event.target === view && event.key === "Home") {
      seek(0);
    } else if (event.target === view && event.key === "End") {
      seek(duration);
    } else {
      return;
    }
    event.preventDefault();
  });
}
