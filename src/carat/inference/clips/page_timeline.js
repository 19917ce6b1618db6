// The timeline: one canvas that shows the visible part, inside a track that is as wide as the recording.
const view = byId("view");
const track = byId("track");
const canvas = byId("canvas");
const AXIS = 22;
const WAVE = data.waveform ? 56 : 0;
const LANE = labels.length <= 8 ? 34 : labels.length <= 16 ? 26 : 20;
const HEIGHT = AXIS + WAVE + labels.length * LANE;
const MAX_WIDTH = 1e7; // browsers lay out nothing wider
const SHORTEST = 2; // seconds, of the closest zoom
const PLACE = 4; // pixels of an average, where segments are narrower
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 36000];
const peaks = data.waveform ? Uint8Array.from(atob(data.waveform), c => c.charCodeAt(0)) : [];

let shownSeconds = duration; // seconds that fit into the view
let scale = 1; // pixels per second
let isDrawRequested = false;
let wasInView = true;

function requestDraw() {
  if (isDrawRequested) return;
  isDrawRequested = true;
  requestAnimationFrame(() => {
    isDrawRequested = false;
    draw();
  });
}

function zoomTo(seconds) {
  const width = view.clientWidth;
  const center = isInView() ? time : (view.scrollLeft + width / 2) / scale;
  const offset = isInView() && shownSeconds < duration ? time * scale - view.scrollLeft : width / 2;
  shownSeconds = Math.min(Math.max(seconds, SHORTEST, duration * width / MAX_WIDTH), duration);
  layOut();
  view.scrollLeft = center * scale - offset;
  moveCursor();
  for (const button of byId("zoom").children) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.seconds) === shownSeconds));
  }
}

function layOut() {
  const width = view.clientWidth;
  scale = width / shownSeconds;
  track.style.width = shownSeconds < duration ? `${duration * scale}px` : "100%";
  track.style.height = `${HEIGHT}px`;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(HEIGHT * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${HEIGHT}px`;
  requestDraw();
}

function isInView() {
  const x = time * scale - view.scrollLeft;
  return x >= 0 && x <= view.clientWidth;
}

// Move the cursor; the view follows it unless the user has scrolled away.
function moveCursor(isJump = false) {
  byId("cursor").style.left = `${time * scale}px`;
  if (!isInView() && (wasInView || isJump)) view.scrollLeft = time * scale - 0.15 * view.clientWidth;
  wasInView = isInView();
  view.setAttribute("aria-valuenow", time.toFixed(1));
  view.setAttribute("aria-valuetext", `${formatTime(time)} of ${formatTime(duration)}`);
}

function draw() {
  const style = getComputedStyle(document.documentElement);
  const color = name => style.getPropertyValue(name).trim();
  const context = canvas.getContext("2d");
  const ratio = window.devicePixelRatio || 1;
  const width = view.clientWidth;
  const from = view.scrollLeft / scale;
  const until = from + width / scale;
  const toX = at => (at - from) * scale;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, HEIGHT);
  context.textBaseline = "middle";
  if (current !== null) {
    const { start, end } = segments[current];
    context.fillStyle = color("--now");
    context.fillRect(toX(start), 0, Math.max((end - start) * scale, 2), HEIGHT);
  }
  drawAxis(context, color, from, until, toX);
  drawWave(context, color("--wave"), width, from);
  const visible = segments.filter(segment => segment.end >= from && segment.start <= until);
  labels.forEach((label, i) => drawLane(context, color, label, i, visible, toX, width));
}

function drawAxis(context, color, from, until, toX) {
  const ticks = STEPS.find(seconds => seconds * scale >= 72) ?? STEPS.at(-1);
  context.font = "11px system-ui, sans-serif";
  for (let k = Math.ceil(from / ticks - 1); k * ticks <= until; k++) {
    const x = Math.round(toX(k * ticks)) + 0.5;
    context.fillStyle = color("--line");
    context.fillRect(x - 0.5, 0, 1, HEIGHT);
    context.fillStyle = color("--soft");
    context.fillText(formatTime(k * ticks, ticks < 1 ? 1 : 0), x + 4, AXIS / 2);
  }
}

function drawWave(context, color, width, from) {
  if (!WAVE) return;
  const middle = AXIS + WAVE / 2;
  const perPixel = peaks.length / (duration * scale);
  context.fillStyle = color;
  for (let x = 0; x < width; x++) {
    const first = Math.floor((from * scale + x) * perPixel);
    const last = Math.max(Math.floor((from * scale + x + 1) * perPixel), first + 1);
    if (first >= peaks.length) break;
    const peak = Math.max(...peaks.subarray(first, last)) / 255;
    const half = Math.max(peak * (WAVE / 2 - 3), 0.5);
    context.fillRect(x, middle - half, 1, 2 * half);
  }
}

// The bars of a lane; where they would be narrower than a few pixels, averages of those that share a place.
function makeBars(index, visible, toX, isAveraged) {
  if (!isAveraged) {
    return visible.map(segment => ({
      x: toX(segment.start),
      width: Math.max((segment.end - segment.start) * scale, 1.5),
      score: segment.scores[index] ?? 0,
      share: isPresent(segment, index) ? 1 : 0,
    }));
  }
  const places = new Map();
  const first = toX(0) % PLACE;
  for (const segment of visible) {
    const place = Math.floor((toX((segment.start + segment.end) / 2) - first) / PLACE);
    if (!places.has(place)) places.set(place, { x: first + place * PLACE, width: PLACE, score: 0, share: 0, count: 0 });
    const bar = places.get(place);
    bar.count += 1;
    bar.score += ((segment.scores[index] ?? 0) - bar.score) / bar.count;
    bar.share += ((isPresent(segment, index) ? 1 : 0) - bar.share) / bar.count;
  }
  return [...places.values()];
}

function drawLane(context, color, label, index, visible, toX, width) {
  const top = AXIS + WAVE + index * LANE;
  const bottom = top + LANE;
  const inner = LANE - 3;
  const height = score => inner * Math.min(Math.max(score, 0), 1);
  const ink = color(label.color);
  const isAveraged = visible.length * PLACE > width;
  byId("averaged").hidden = !isAveraged;
  const bars = makeBars(index, visible, toX, isAveraged)
    .map(bar => ({ ...bar, height: Math.max(height(bar.score), 1) }))
    .sort((a, b) => a.share - b.share || b.score - a.score); // the lower ones in front
  context.fillStyle = color("--line");
  context.fillRect(0, top, width, 1);
  for (const bar of bars) {
    context.fillStyle = ink;
    context.globalAlpha = 0.2 + 0.8 * bar.share;
    context.fillRect(bar.x, bottom - bar.height, bar.width, bar.height);
    context.globalAlpha = 1;
    if (isAveraged || bar.width < 5) continue;
    context.strokeStyle = bar.share ? color("--paper") : ink;
    context.strokeRect(bar.x + 0.5, bottom - bar.height + 0.5, bar.width - 1, bar.height - 1);
  }
  if (label.threshold !== null) {
    const y = Math.round(bottom - height(label.threshold)) + 0.5;
    context.strokeStyle = color("--soft");
    context.setLineDash([3, 3]);
    context.beginPath();
    context.moveTo(0, y);
    context.lineTo(width, y);
    context.stroke();
    context.setLineDash([]);
  }
  if (isAveraged || LANE < 26) return; // no room for numbers
  for (const bar of bars) {
    if (bar.width >= 32) drawScore(context, color, bar, bottom);
  }
}

function drawScore(context, color, bar, bottom) {
  const isInside = bar.height >= 14;
  const y = isInside ? bottom - bar.height + 8 : bottom - bar.height - 6;
  context.font = `${bar.share ? "700" : "400"} 11px system-ui, sans-serif`;
  const x = Math.max(bar.x, 0) + 5;
  if (!isInside) { // a halo, where the threshold crosses the number
    context.strokeStyle = color("--paper");
    context.lineWidth = 3;
    context.strokeText(formatScore(bar.score), x, y);
    context.lineWidth = 1;
  }
  context.fillStyle = color(bar.share && isInside ? "--on-bar" : "--ink");
  context.fillText(formatScore(bar.score), x, y);
}

// Names of the lanes, level with what the canvas shows.
function prepareNames() {
  const row = (height, name, className = "") => {
    const made = element("div", className);
    made.style.height = `${height}px`;
    if (name) made.append(element("span", "", name));
    byId("names").append(made);
    return made;
  };
  row(AXIS, "", "time-axis");
  if (WAVE) row(WAVE, "sound", "sound");
  for (const label of labels) {
    const made = row(LANE, label.name);
    made.title = label.name;
    const dot = element("span", "dot");
    dot.style.setProperty("--color", `var(${label.color})`);
    made.prepend(dot);
  }
}

function prepareZoom() {
  const presets = [["10 min", 600], ["1 min", 60], ["10 s", 10]].filter(([, seconds]) => seconds < duration);
  for (const [name, seconds] of [["Whole", duration], ...presets]) {
    const button = element("button", "", name);
    button.type = "button";
    button.dataset.seconds = seconds;
    button.addEventListener("click", () => zoomTo(seconds));
    byId("zoom").append(button);
  }
  for (const [sign, name, factor] of [["−", "Zoom out", 2], ["+", "Zoom in", 0.5]]) {
    const button = element("button", "", sign);
    button.type = "button";
    button.setAttribute("aria-label", name);
    button.addEventListener("click", () => zoomTo(shownSeconds * factor));
    byId("zoom").append(button);
  }
}

const timeAt = event => (event.clientX - view.getBoundingClientRect().left + view.scrollLeft) / scale;

function preparePointer() {
  view.addEventListener("pointerdown", event => {
    const isScrollbar = event.clientY - view.getBoundingClientRect().top > HEIGHT;
    if (event.button || isScrollbar || event.pointerType === "touch") return; // touch scrolls, a tap seeks
    view.setPointerCapture(event.pointerId);
    seek(timeAt(event));
  });
  view.addEventListener("pointermove", event => {
    if (view.hasPointerCapture(event.pointerId)) seek(timeAt(event));
    else if (event.pointerType !== "touch") showTip(event);
  });
  view.addEventListener("pointerleave", () => { byId("tip").hidden = true; });
  view.addEventListener("click", event => { if (event.pointerType === "touch") seek(timeAt(event)); });
}

function showTip(event) {
  const tip = byId("tip");
  const at = timeAt(event);
  const lane = Math.floor((event.clientY - view.getBoundingClientRect().top - AXIS - WAVE) / LANE);
  const segment = segments.findLast(one => one.start <= at && at < one.end);
  tip.hidden = !segment || !labels[lane];
  if (tip.hidden) return;
  const { name, threshold } = labels[lane];
  const limit = threshold === null ? "" : `, threshold ${formatScore(threshold)}`;
  tip.textContent = `${formatRange(segment)} · ${name} ${formatScore(segment.scores[lane])}${limit}`;
  const frame = tip.parentElement.getBoundingClientRect();
  const left = event.clientX - frame.left + 12;
  tip.style.left = `${Math.max(Math.min(left, frame.width - tip.offsetWidth - 4), 4)}px`;
  tip.style.top = `${event.clientY - frame.top + 16}px`;
}

function prepareTimeline() {
  view.setAttribute("aria-valuemax", duration.toFixed(1));
  prepareNames();
  prepareZoom();
  preparePointer();
  view.addEventListener("scroll", () => {
    requestDraw();
    wasInView = isInView();
  });
  new ResizeObserver(() => zoomTo(shownSeconds)).observe(view);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", requestDraw);
}
