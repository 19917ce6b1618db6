// The page: choice of models, tabs, token.
import { getJson, setToken } from "./api.js";
import { prepareClips } from "./clip_view.js";
import { byId, element, fillSelect, fillStrings } from "./elements.js";
import { strings } from "./strings.js";
import { prepareText } from "./text_view.js";

const TABS = ["text", "clip"];
let runs = [];

function report(problem) {
  const isToken = problem?.status === 401;
  byId("sign-in").hidden = !isToken;
  byId("problem").hidden = !problem || isToken;
  byId("problem").textContent = problem ? problem.message : "";
  if (isToken) byId("token").focus();
}

const named = id => runs.find(run => run.name === byId(id).value);

// The chosen models that can do something; the first one in any case, so that the server says why it cannot.
function chosenRuns(ability) {
  const [first, second] = [named("run"), named("compare")];
  return second && second !== first && second[ability] ? [first, second] : [first];
}

function describe(run) {
  const facts = element("dl", "facts");
  const add = (name, text) => {
    const row = element("div");
    row.append(element("dt", "", name), element("dd", "", text));
    facts.append(row);
  };
  const f1 = run.validation.micro_f1;
  add(strings.aboutMethod, run.method);
  add(strings.aboutData, run.trained_on);
  add(strings.aboutValidation, f1 === undefined || f1 === null ? strings.unknown : f1.toFixed(2));
  add(strings.aboutScores, run.calibrated ? strings.calibrated : strings.uncalibrated);
  add(strings.aboutReads, Object.entries(run.modalities).map(([name, { source }]) => `${name} (${source})`).join(", "));
  add(strings.aboutLabels, run.labels.join(", "));
  if (run.notes.length) add(strings.aboutNotes, run.notes.join("; "));
  return facts;
}

function showRun() {
  const run = named("run");
  const others = runs.filter(other => other !== run).map(({ name }) => [name, name]);
  const compared = byId("compare").value;
  fillSelect(byId("compare"), [["", strings.nothing], ...others]);
  if (others.some(([name]) => name === compared)) byId("compare").value = compared;
  byId("compare-choice").hidden = !others.length;
  byId("about").replaceChildren(describe(run));
  byId("dialogue-hint").textContent = run.context ? strings.dialogueContext : strings.dialogueNoContext;
  byId("text-status").textContent = run.reads_text ? "" : strings.noTextModel;
  byId("clip-status").textContent = run.reads_clips ? "" : strings.noClipModel;
}

function showTab(shown, focuses = false) {
  for (const name of TABS) {
    const tab = byId(`${name}-tab`);
    tab.setAttribute("aria-selected", String(name === shown));
    tab.tabIndex = name === shown ? 0 : -1;
    byId(`${name}-panel`).hidden = name !== shown;
  }
  if (focuses) byId(`${shown}-tab`).focus();
}

function prepareTabs() {
  for (const name of TABS) {
    const other = TABS.find(one => one !== name);
    byId(`${name}-tab`).addEventListener("click", () => showTab(name));
    byId(`${name}-tab`).addEventListener("keydown", event => {
      if (["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) {
        const target = { Home: TABS[0], End: TABS.at(-1) }[event.key] ?? other;
        showTab(target, true);
        event.preventDefault();
      }
    });
  }
}

async function load() {
  try {
    ({ runs } = await getJson("v1/runs"));
  } catch (error) {
    report(error);
    return;
  }
  report("");
  fillSelect(byId("run"), runs.map(({ name }) => [name, name]));
  byId("main").hidden = false;
  showRun();
  showTab(runs[0].reads_text || !runs[0].reads_clips ? "text" : "clip");
}

fillStrings();
prepareTabs();
prepareText(chosenRuns, report);
prepareClips(chosenRuns, report);
byId("run").addEventListener("change", showRun);
byId("sign-in").addEventListener("submit", event => {
  event.preventDefault();
  setToken(byId("token").value.trim());
  load();
});
load();
