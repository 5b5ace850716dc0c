// Cards of tasks to begin with: one is chosen.
element.addEventListener("click", (event) => {
  const card = event.target.closest("button[data-template]");
  if (!card) return;
  props.value = card.dataset.template;
  show();
  trigger("choose");
});
function show() {
  element.querySelectorAll("button[data-template]").forEach((card) =>
    card.setAttribute("aria-pressed", String(card.dataset.template === props.value)),
  );
}
watch("value", show);
show();
