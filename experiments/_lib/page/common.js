// What both tabs do the same way; Gradio gives `element`, `server` and `props`.
const answer = element.querySelector(".answer");
const LARGEST = 20e6; // bytes of a picture
let asked = 0; // so that a late answer does not replace a later one's

function say(text, kind = "") {
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = text;
  answer.replaceChildren(line);
}

async function ask(call) {
  const mine = ++asked;
  const started = performance.now();
  const html = await call().catch(() => null);
  if (mine !== asked) return;
  if (typeof html === "string") answer.innerHTML = html;
  else say("No answer: is experiments.draw still running?", "problem");
  element.querySelector("[role=status]").textContent = answer.querySelector(".read, .problem")?.textContent ?? "";
  answer.dataset.milliseconds = Math.round(performance.now() - started);
  answer.dataset.answers = mine;
}

function whenOpened(use) { // a picture file that is chosen or dropped, as a data URL
  function open(file) {
    if (!file) return;
    if (file.size > LARGEST) {
      asked += 1;
      say(`${file.name}: ${Math.round(file.size / 1e6)} MB, more than the ${LARGEST / 1e6} MB accepted`, "problem");
      return;
    }
    const reader = new FileReader();
    reader.onload = () => use(reader.result);
    reader.onerror = () => say(`${file.name}: could not be read`, "problem");
    reader.readAsDataURL(file);
  }
  element.querySelector("input").addEventListener("change", (event) => {
    open(event.target.files[0]);
    event.target.value = ""; // so that the same file can be opened again
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    if (element.offsetParent) open(event.dataTransfer.files[0]); // only the tab that is shown
  });
}
