const canvas = element.querySelector("canvas");
const pen = canvas.getContext("2d");

function read(picture) {
  ask(() => server.read(picture));
}

function clear() {
  pen.fillStyle = "black";
  pen.fillRect(0, 0, canvas.width, canvas.height);
}

function show(picture) { // on the canvas, as large as it fits
  const image = new Image();
  image.onload = () => {
    clear();
    const scale = Math.min(canvas.width / image.width, canvas.height / image.height);
    const [width, height] = [image.width * scale, image.height * scale];
    pen.imageSmoothingEnabled = scale < 1;
    pen.drawImage(image, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
  };
  image.onerror = clear;
  image.src = picture;
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  Object.assign(pen, { strokeStyle: "white", lineWidth: 16, lineCap: "round", lineJoin: "round" });
  pen.beginPath();
  pen.moveTo(...place(event));
  pen.lineTo(...place(event)); // a dot, if nothing follows
  pen.stroke();
});
canvas.addEventListener("pointermove", (event) => {
  if (!canvas.hasPointerCapture(event.pointerId)) return;
  pen.lineTo(...place(event));
  pen.stroke();
});
for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, () => read(canvas.toDataURL()));
}

element.querySelector(".clear").addEventListener("click", () => {
  asked += 1;
  clear();
  say("Draw an X or an O with the mouse or a finger.");
});
for (const button of element.querySelectorAll("[data-example]")) {
  button.addEventListener("click", () => {
    show(props.examples[button.dataset.example]);
    read(props.examples[button.dataset.example]);
  });
}
whenOpened((picture) => {
  show(picture);
  read(picture);
});
clear();
