// Scores of texts: bars per emotion, and the words that raise or lower them.
import { postJson, save } from "./api.js";
import { byId, element, fillSelect, makeBars, makeText } from "./elements.js";
import { strings } from "./strings.js";

const SPEAKER = /^\s*([^:\n]{1,40}):\s+(\S.*)$/u;

// The lines of the text field, with speakers where they are turns of a conversation.
export function readLines(text, isDialogue) {
  return text.split("\n").map(line => line.trim()).filter(Boolean).map(line => {
    const match = isDialogue ? line.match(SPEAKER) : null;
    return match ? { speaker: match[1].trim(), text: match[2] } : { speaker: "", text: line };
  });
}

function makeRequest(lines, run, isDialogue, explains) {
  const body = { run: run.name, texts: lines.map(line => line.text), words: explains ? 5 : 0, speakers: lines.map(line => line.speaker) };
  if (isDialogue && run.context) body.conversations = lines.map(() => "page");
  return body;
}

function strongest(prediction) {
  const among = prediction.labels.length ? prediction.labels : Object.keys(prediction.scores);
  return among.reduce((best, label) => (prediction.scores[label] > prediction.scores[best] ? label : best));
}

// One text with the scores of every run.
function makeCard(index, answers) {
  const card = element("article", "box");
  const [first] = answers;
  const prediction = first.predictions[index];
  if (prediction.speaker) card.append(element("h3", "speaker", prediction.speaker));
  const place = element("div");
  const show = label => place.replaceChildren(makeText(prediction, label));
  show(strongest(prediction));
  card.append(place);
  if (prediction.effects.length) card.append(makeChoice(prediction, show));
  const bars = element("div", "compared");
  for (const answer of answers) {
    const scores = answer.predictions[index];
    const column = element("section");
    if (answers.length > 1) column.append(element("h4", "", answer.run));
    column.append(makeBars(scores, answer.thresholds, answer.run));
    if (!scores.labels.length) column.append(element("p", "small", strings.noLabel));
    for (const note of scores.notes ?? []) column.append(element("p", "small", note));
    bars.append(column);
  }
  card.append(bars);
  return card;
}

function makeChoice(prediction, show) {
  const choice = element("div", "bar");
  const label = element("label", "", `${strings.colored} `);
  const select = element("select");
  fillSelect(select, Object.keys(prediction.scores).map(name => [name, name]));
  select.value = strongest(prediction);
  label.append(select);
  const legend = element("p", "legend small");
  legend.append(element("span", "word up", strings.word), ` ${strings.raises} `);
  legend.append(element("span", "word down", strings.word), ` ${strings.lowers}`);
  const context = element("p", "small");
  const update = () => {
    show(select.value);
    const drop = prediction.context_drops[select.value];
    context.textContent = drop === undefined ? "" : strings.context(select.value, (drop > 0 ? "+" : "") + drop.toFixed(2));
  };
  select.addEventListener("change", update);
  update();
  choice.append(label, legend, context);
  return choice;
}

function csvCell(value) {
  const text = String(value);
  const safe = /^[=+\-@\t]/u.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text; // no formula in a spreadsheet
  return /[",\n]/u.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function toCsv(answers) {
  const labels = Object.keys(answers[0].thresholds);
  const rows = [["run", "speaker", "text", "labels", ...labels.map(label => `score_${label}`)]];
  for (const { run, predictions } of answers) {
    for (const x of predictions) rows.push([run, x.speaker, x.text, x.labels.join(";"), ...labels.map(label => x.scores[label] ?? "")]);
  }
  return rows.map(row => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

function showDownloads(answers) {
  const make = (name, format, content, type) => {
    const button = element("button", "", strings.download(format));
    button.type = "button";
    button.addEventListener("click", () => save(new Blob([content()], { type }), name));
    return button;
  };
  byId("text-downloads").replaceChildren(
    make("scores.csv", "CSV", () => toCsv(answers), "text/csv"),
    make("scores.json", "JSON", () => JSON.stringify(answers, null, 2), "application/json"),
  );
  byId("text-downloads").hidden = false;
}

let latest = 0;

export function prepareText(chosenRuns, report) {
  byId("text-form").addEventListener("submit", async event => {
    event.preventDefault();
    const number = ++latest;
    const isDialogue = byId("dialogue").checked;
    const lines = readLines(byId("text").value, isDialogue);
    if (!lines.length) return;
    byId("text-status").textContent = strings.scoring;
    report("");
    try {
      const requests = chosenRuns("reads_text").map(run => makeRequest(lines, run, isDialogue, byId("explain").checked));
      const answers = await Promise.all(requests.map(body => postJson("v1/predict/text", body)));
      if (number !== latest) return; // another request was made meanwhile
      byId("text-results").replaceChildren(...lines.map((_, i) => makeCard(i, answers)));
      showDownloads(answers);
      byId("text-status").textContent = strings.scored(lines.length);
    } catch (error) {
      byId("text-status").textContent = "";
      report(error);
    }
  });
  byId("example").addEventListener("click", () => {
    byId("text").value = strings.exampleText;
    byId("dialogue").checked = true;
    byId("text").focus();
  });
}
