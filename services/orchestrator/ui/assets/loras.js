// Which LoRAs draw, each with its weight.
const { make } = window.dualprocess;
let rows = [];
element.dataset.scope = "use";
const list = make("ul", { className: "dp-loras" });
const choice = make("select");
choice.setAttribute("aria-label", "A LoRA of the gallery");
choice.dataset.field = "loras";
const add = make("button", { type: "button", className: "dp-button", textContent: "Add this LoRA" });
element.append(list, make("div", { className: "dp-tools" }, choice, add));

const named = (job) => (props.choices || []).find((one) => one.job === job)?.label || job;
const tell = () => { props.value = rows.map((row) => ({ ...row })); };

function show() {
  const free = (props.choices || []).filter((one) => !rows.some((row) => row.job === one.job));
  choice.replaceChildren(...free.map((one) => make("option", { value: one.job, textContent: one.label })));
  choice.disabled = add.disabled = !free.length;
  if (!free.length) choice.append(make("option", { textContent: rows.length ? "no more LoRAs of this generator" : "no finished LoRA of this generator yet" }));
  list.replaceChildren(...rows.map((row, index) => {
    const name = named(row.job);
    const slide = make("input", { type: "range", min: -2, max: 2, step: 0.05, value: row.weight });
    slide.setAttribute("aria-label", `Weight of ${name}`);
    const number = make("input", { type: "number", step: 0.05, value: row.weight });
    number.setAttribute("aria-label", `Weight of ${name}, as a number`);
    number.dataset.field = `loras.${index}.weight`;
    const set = (from, to) => from.addEventListener("input", () => { to.value = from.value; row.weight = Number(from.value); tell(); });
    set(slide, number);
    set(number, slide);
    const remove = make("button", { type: "button", className: "dp-remove", textContent: "×" });
    remove.setAttribute("aria-label", `Remove ${name}`);
    remove.addEventListener("click", () => { rows.splice(index, 1); tell(); show(); choice.focus(); });
    const label = make("span", { className: "dp-name", textContent: name });
    const item = make("li", {}, label, slide, number, remove);
    item.dataset.field = `loras.${index}`;
    return item;
  }));
}
add.addEventListener("click", () => { rows.push({ job: choice.value, weight: 1 }); tell(); show(); });
function take() {
  rows = (props.value || []).map((row) => ({ ...row }));
  show();
}
watch("value", () => { if (JSON.stringify(props.value || []) !== JSON.stringify(rows)) take(); });
watch("choices", show);
take();
