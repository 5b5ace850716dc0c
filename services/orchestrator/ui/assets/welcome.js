// Open on the first visit; later as the visitor left it.
const box = element.querySelector("details");
const KEY = "dualprocess-welcome";
const kept = localStorage.getItem(KEY);
if (kept) box.open = kept === "open";
box.addEventListener("toggle", () => localStorage.setItem(KEY, box.open ? "open" : "closed"));
