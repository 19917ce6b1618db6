const table = document.getElementById("main");
const heads = [...table.tHead.rows[0].cells];
heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
  const text = head.dataset.kind === "text";
  const now = head.getAttribute("aria-sort");
  const ascending = now ? now === "descending" : text;
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const value = row => row.cells[column].dataset.value;
  const order = (a, b) => text ? value(a).localeCompare(value(b)) : value(a) - value(b);
  const rows = [...table.tBodies[0].rows].sort((a, b) => ascending ? order(a, b) : order(b, a));
  table.tBodies[0].append(...rows);
}));
