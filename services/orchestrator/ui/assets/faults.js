// What went wrong: a sentence here, and a note at each field.
const { make, mark } = window.dualprocess;
async function show() {
  const faults = props.value || { title: "", fields: [] };
  // Folded settings are unfolded for their faults: Gradio takes a moment.
  if (faults.fields.length) await new Promise((done) => setTimeout(done, 150));
  const first = mark(props.scope, faults);
  element.replaceChildren();
  if (!faults.title) return;
  const list = make("ul");
  faults.fields.forEach((fault) =>
    list.append(make("li", {}, make("code", { textContent: fault.field }), ` ${fault.message}`)),
  );
  const box = make("div", { className: "dp-faults" }, make("strong", { textContent: faults.title }));
  box.setAttribute("role", "alert");
  if (faults.fields.length) box.append(list);
  element.append(box);
  (first || box).scrollIntoView({ block: "center", behavior: "smooth" });
  first?.focus({ preventScroll: true });
}
watch("value", show);
show();
