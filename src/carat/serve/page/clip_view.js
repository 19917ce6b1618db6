// Recordings: upload, progress, and the timeline of the result in a frame of its own.
import { follow, request, save, upload } from "./api.js";
import { byId, element, fillSelect } from "./elements.js";
import { prepareRecorder } from "./recorder.js";
import { strings } from "./strings.js";

const FORMATS = ["csv", "eaf", "TextGrid", "vtt", "json", "html"];
let file = null; // what was dropped or recorded
let recording = ""; // address of the recording that is shown
let running = null; // what is being scored: its ID and how to stop it

const say = text => { byId("clip-status").textContent = text; };

function chooseFile(chosen) {
  file = chosen;
  if (chosen) say(chosen.name);
}

function showProgress(step, done = null, total = null) {
  byId("progress").hidden = false;
  byId("step").textContent = total ? `${step} ${done}/${total}` : step;
  if (total) {
    byId("bar").max = total;
    byId("bar").value = done;
  } else {
    byId("bar").removeAttribute("value");
  }
}

function showRunning(isRunning) {
  byId("cancel").hidden = !isRunning;
  byId("progress").hidden = !isRunning;
  byId("clip-form").querySelector(".primary").disabled = isRunning;
}

function showStatus(job) {
  if (job.state === "queued") showProgress(strings.queued);
  else if (job.progress) showProgress(job.progress.step, job.progress.done, job.progress.total);
}

function makeForm(clip, runs) {
  const form = new FormData();
  form.append("segments", byId("segments-choice").value);
  for (const run of runs) form.append("run", run.name);
  form.append("file", clip, clip.name);
  const [transcript] = byId("transcript-file").files;
  if (transcript) form.append("transcript", transcript, transcript.name);
  return form;
}

async function score(clip, runs) {
  const stop = new AbortController();
  running = { id: null, stop };
  showRunning(true);
  showProgress(strings.uploading);
  say("");
  try {
    const sent = share => showProgress(strings.uploading, Math.round(100 * share), 100);
    const job = await upload("v1/predict/clip", makeForm(clip, runs), stop.signal, sent);
    running.id = job.id;
    showStatus(job);
    const last = await follow(`v1/jobs/${job.id}/events`, stop.signal, showStatus);
    if (last?.state === "finished") await showResults(last, clip);
    else if (last?.state === "cancelled") say(strings.cancelled);
    else say(strings.failed(last?.error || strings.ended));
  } finally {
    running = null;
    showRunning(false);
  }
}

async function cancel() {
  if (!running) return;
  const { id, stop } = running;
  if (id) await request(`v1/jobs/${id}`, { method: "DELETE" });
  stop.abort();
  say(strings.cancelled);
}

async function showResults(job, clip) {
  if (recording) URL.revokeObjectURL(recording);
  recording = URL.createObjectURL(clip);
  const results = await Promise.all(job.runs.map(run => makeResult(job, run)));
  const removal = element("p", "small", `${strings.expires} `);
  const remove = element("button", "", strings.remove);
  remove.type = "button";
  remove.addEventListener("click", async () => {
    await request(`v1/jobs/${job.id}`, { method: "DELETE" }).catch(() => {});
    byId("clip-results").replaceChildren();
    say(strings.removed);
  });
  removal.append(remove);
  byId("clip-results").replaceChildren(...results, removal);
  say(strings.finished);
}

async function makeResult(job, run) {
  const address = format => `v1/jobs/${job.id}/result/${format}?run=${encodeURIComponent(run)}`;
  const html = await (await request(address("html"))).text();
  const section = element("section", "result");
  section.append(element("h2", "", strings.resultOf(job.file, run)));
  const downloads = element("div", "actions");
  for (const format of FORMATS.filter(name => !(name in job.unavailable))) {
    const button = element("button", "", strings.download(format));
    button.type = "button";
    button.addEventListener("click", async () => {
      const response = await request(address(format));
      save(await response.blob(), `${job.file.replace(/\.[^.]*$/u, "")}.${format}`);
    });
    downloads.append(button);
  }
  const frame = element("iframe");
  frame.title = strings.resultOf(job.file, run);
  frame.src = "static/clip.html";
  frame.addEventListener("load", () => {
    frame.contentWindow.showClip(html, recording);
    const body = frame.contentDocument.body;
    new ResizeObserver(() => { frame.style.height = `${body.scrollHeight + 8}px`; }).observe(body);
  });
  section.append(downloads, frame);
  return section;
}

function prepareDrop() {
  const drop = byId("drop");
  for (const kind of ["dragover", "dragenter"]) {
    drop.addEventListener(kind, event => {
      event.preventDefault();
      drop.classList.add("is-over");
    });
  }
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("is-over"));
  drop.addEventListener("drop", event => {
    event.preventDefault();
    byId("clip").value = "";
    chooseFile(event.dataTransfer.files[0] ?? null);
  });
}

export function prepareClips(chosenRuns, report) {
  fillSelect(byId("segments-choice"), Object.entries(strings.segmentChoices));
  byId("clip").addEventListener("change", event => chooseFile(event.target.files[0] ?? null));
  prepareDrop();
  prepareRecorder(recorded => {
    byId("clip").value = "";
    file = recorded;
  }, say, report);
  byId("cancel").addEventListener("click", () => cancel().catch(report));
  byId("clip-form").addEventListener("submit", event => {
    event.preventDefault();
    if (running) return;
    if (!file) {
      say(strings.noFile);
      byId("clip").focus();
      return;
    }
    report("");
    score(file, chosenRuns("reads_clips")).catch(error => {
      if (error.name === "AbortError") return;
      say("");
      report(error);
    });
  });
}
