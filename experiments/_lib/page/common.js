// Shared by both tabs; Gradio defines `element`, `server` and `props`.
const answer = element.querySelector(".answer");
const MAX_BYTES = 20e6; // of a picture file
let lastRequest = 0; // so that a late answer does not replace that of a later request

function showMessage(text, kind = "") {
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = text;
  answer.replaceChildren(line);
}

async function showAnswer(call) {
  const request = ++lastRequest;
  const started = performance.now();
  const html = await call().catch(() => null);
  if (request !== lastRequest) return;
  if (typeof html === "string") answer.innerHTML = html;
  else showMessage("No answer: is experiments.draw still running?", "problem");
  element.querySelector("[role=status]").textContent = answer.querySelector(".read, .problem")?.textContent ?? "";
  answer.dataset.milliseconds = Math.round(performance.now() - started);
  answer.dataset.answers = request;
}

function onPictureOpened(use) { // calls use(dataUrl) for a picture file that is chosen or dropped
  function open(file) {
    if (!file) return;
    if (file.size > MAX_BYTES) {
      lastRequest += 1;
      const megabytes = Math.round(file.size / 1e6);
      showMessage(`${file.name}: expected at most ${MAX_BYTES / 1e6} MB, got ${megabytes} MB`, "problem");
      return;
    }
    const reader = new FileReader();
    reader.onload = () => use(reader.result);
    reader.onerror = () => showMessage(`${file.name}: could not be read`, "problem");
    reader.readAsDataURL(file);
  }
  element.querySelector("input").addEventListener("change", (event) => {
    open(event.target.files[0]);
    event.target.value = ""; // so that the same file can be opened again
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    if (element.offsetParent) open(event.dataTransfer.files[0]); // only in the visible tab
  });
}
