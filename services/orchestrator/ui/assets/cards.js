// Buttons of jobs: a click says which. There are "open", "use" and "delete".
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-do]");
  if (!button) return;
  if (button.dataset.ask && !confirm(button.dataset.ask)) return;
  trigger(button.dataset.do, { job: button.dataset.job });
});
