// The table of questions: each with its answer and perhaps a drawing laid over the image.
const { make } = window.dualprocess;
const EMPTY = { question: "", answer: "Yes", drawing: null, mode: "solid", weight: 1 };
let rows = [];
element.dataset.scope = "teach";
const list = make("ol", { className: "dp-questions" });
const more = make("button", { type: "button", className: "dp-button", textContent: "+ Add a question" });
element.append(list, more);

const tell = () => { props.value = rows.map((row) => ({ ...row })); };

function field(index, name, label, row, properties = {}) {
  const input = make("textarea", { rows: 1, value: row[name] || "", ...properties });
  input.addEventListener("keydown", (event) => { if (event.key === "Enter") event.preventDefault(); });
  input.dataset.field = `questions.${index}.${name}`;
  input.addEventListener("input", () => { row[name] = input.value; tell(); });
  return make("label", { className: `dp-${name}` }, make("span", { textContent: label }), input);
}

function weight(index, row) {
  const input = make("input", { type: "number", min: 0, step: "any", value: row.weight ?? "", placeholder: "1" });
  input.dataset.field = `questions.${index}.weight`;
  input.setAttribute("aria-label", `Weight of question ${index + 1}`);
  input.addEventListener("input", () => { row.weight = input.value === "" ? null : Number(input.value); tell(); });
  const title = "How much this question counts beside the others";
  return make("label", { className: "dp-weight", title }, make("span", { textContent: "Weight" }), input);
}

function drawn(index, row) {
  const box = make("div", { className: "dp-drawn" });
  box.dataset.field = `questions.${index}.visual_prompt`;
  const draw = make("button", { type: "button", className: "dp-button", textContent: row.drawing ? "Edit drawing" : "Draw on it" });
  draw.setAttribute("aria-label", `${draw.textContent}, question ${index + 1}`);
  draw.addEventListener("click", () => window.dualprocess.draw(row, (png) => { row.drawing = png; tell(); show(); }));
  const upload = make("label", { className: "dp-button dp-upload", textContent: "Upload" });
  const file = make("input", { type: "file", accept: "image/png,image/jpeg,image/webp,image/gif,image/avif" });
  file.setAttribute("aria-label", `Upload a drawing for question ${index + 1}`);
  file.addEventListener("change", async () => {
    if (!file.files.length) return;
    row.drawing = await window.dualprocess.readPicture(file.files[0]);
    tell();
    show();
  });
  upload.append(file);
  if (!row.drawing) { box.append(draw, upload); return box; }
  const mode = make("select");
  mode.setAttribute("aria-label", `How the drawing of question ${index + 1} is laid over the image`);
  for (const [value, text] of [["solid", "solid: white is clear"], ["transparent", "transparent: half and half"]]) {
    mode.append(make("option", { value, textContent: text, selected: row.mode === value }));
  }
  mode.addEventListener("change", () => { row.mode = mode.value; tell(); });
  const away = make("button", { type: "button", className: "dp-button", textContent: "Remove drawing" });
  away.addEventListener("click", () => { row.drawing = null; tell(); show(); });
  box.append(make("img", { src: row.drawing, alt: `Drawing of question ${index + 1}` }), draw, upload, mode, away);
  return box;
}

function show() {
  list.replaceChildren(...rows.map((row, index) => {
    const remove = make("button", { type: "button", className: "dp-remove", textContent: "×", title: "Remove this question" });
    remove.setAttribute("aria-label", `Remove question ${index + 1}`);
    remove.addEventListener("click", () => {
      rows.splice(index, 1);
      tell();
      show();
      more.focus();
    });
    return make(
      "li", {},
      field(index, "question", `Question ${index + 1}`, row, { placeholder: "Is the circle red?" }),
      field(index, "answer", "Right answer", row, { placeholder: "Yes" }),
      remove,
      drawn(index, row),
      weight(index, row),
    );
  }));
}

more.addEventListener("click", () => {
  rows.push({ ...EMPTY });
  tell();
  show();
  list.lastElementChild.querySelector("textarea").focus();
});

function take() {
  const given = props.value || [];
  if (JSON.stringify(given) === JSON.stringify(rows)) return;
  rows = given.map((row) => ({ ...EMPTY, ...row }));
  show();
}
watch("value", take);
take();
