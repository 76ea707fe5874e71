// Keys and buttons. An answer says which window was on the screen, so that a quick second press answers no unseen one.
const keys = { c: "cells", e: "empty", u: "unusable", s: "skip", z: "undo", backspace: "undo" };

function act(action) {
  const picture = document.getElementById("window");
  const visible = picture && picture.complete && picture.naturalWidth > 0;
  if (!visible && action !== "undo") return;
  document.activeElement?.blur();
  emitEvent("act", { action, shown: Number(picture.dataset.place) });
}

// Where a layout has no Latin letters, such as Greek or Cyrillic, the letter that the key has on others
function pressed(event) {
  return (/[^ -~]/.test(event.key) ? event.code.replace("Key", "") : event.key).toLowerCase();
}

document.addEventListener("keydown", (event) => {
  const action = keys[pressed(event)];
  const held = event.ctrlKey || event.metaKey;
  if (!action || event.repeat || event.altKey || (held && pressed(event) !== "z")) return;
  event.preventDefault();
  act(action);
});
