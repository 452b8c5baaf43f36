// Shows /openapi.json as a page.

const element = (tag, text = "", name = "") => {
  const made = document.createElement(tag);
  made.textContent = text;
  if (name) made.className = name;
  return made;
};

const rows = (head, entries) => {
  const table = element("table");
  for (const entry of [head, ...entries]) {
    const row = table.insertRow();
    for (const text of entry) row.append(element(entry === head ? "th" : "td", text));
  }
  return table;
};

const answer = await fetch("openapi.json");
const api = await answer.json();
const place = document.getElementById("paths");
for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    const section = element("section");
    const title = element("h2");
    title.append(element("code", `${method.toUpperCase()} ${path}`));
    section.append(title, element("p", [operation.summary, operation.description].filter(Boolean).join(". ")));
    const options = (operation.parameters ?? []).filter((entry) => entry.in === "query");
    if (options.length) {
      section.append(rows(["Option", "What"], options.map((entry) => [entry.name, entry.description])));
      const told = Object.entries(operation.responses).map(([status, response]) => [
        status,
        response.description ?? api.components.responses[status].description,
      ]);
      section.append(rows(["Status", "When"], told));
    }
    place.append(section);
  }
}
