// IndexedDB with promises: conversations, and beside them what a list of them shows.

const NAME = "axpress";

let opened = null;

function open() {
  opened ??= new Promise((done, failed) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("chats", { keyPath: "id" });
      request.result.createObjectStore("summaries", { keyPath: "id" });
    };
    request.onsuccess = () => done(request.result);
    request.onerror = () => failed(request.error);
    request.onblocked = () => failed(new Error("the database is blocked"));
  });
  return opened;
}

const result = (request) =>
  new Promise((done, failed) => {
    request.onsuccess = () => done(request.result);
    request.onerror = () => failed(request.error);
  });

export async function get(store, id) {
  return result((await open()).transaction(store).objectStore(store).get(id));
}

export async function getAll(store) {
  return result((await open()).transaction(store).objectStore(store).getAll());
}

/** Changes both stores or none; `change(chats, summaries)` asks for the changes. */
export async function write(change) {
  const transaction = (await open()).transaction(["chats", "summaries"], "readwrite");
  change(transaction.objectStore("chats"), transaction.objectStore("summaries"));
  transaction.commit?.();
  return new Promise((done, failed) => {
    transaction.oncomplete = () => done();
    transaction.onabort = transaction.onerror = () => failed(transaction.error);
  });
}
