"use strict";
// The result of a clip: the page that carat writes for it, with the recording that this browser still has.
const SCRIPTS = ["page.js", "page_timeline.js", "page_transcript.js"];

window.showClip = (html, recording) => {
  const bare = html.replace(/<style[\s\S]*?<\/style>/giu, ""); // the frame has its own, and allows no inline one
  const result = new DOMParser().parseFromString(bare, "text/html"); // runs no script
  const data = result.getElementById("data");
  const values = JSON.parse(data.textContent);
  values.sources = recording ? [recording] : [];
  data.textContent = JSON.stringify(values);
  document.title = result.title;
  for (const node of result.body.children) {
    if (node.tagName !== "SCRIPT" || node === data) document.body.append(document.importNode(node, true));
  }
  for (const name of SCRIPTS) {
    const script = document.createElement("script");
    script.src = name;
    script.async = false; // in this order
    document.body.append(script);
  }
};
