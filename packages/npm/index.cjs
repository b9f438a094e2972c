"use strict";

const path = require("node:path");
const process = require("node:process");

const NAME = "sqlite-litestream";
const SUFFIXES = { darwin: "dylib", win32: "dll" };

/** Flags of node-sqlite3: read and write, create, take URIs. */
const OPEN_URI = 0x02 | 0x04 | 0x40;

function getLoadablePath() {
  if (process.env.LITESTREAM_VFS_LIB) return process.env.LITESTREAM_VFS_LIB;
  const binary = `${NAME}-${process.platform}-${process.arch}`;
  try {
    return require.resolve(`${binary}/litestream_vfs.${SUFFIXES[process.platform] ?? "so"}`);
  } catch (cause) {
    const remedy = "install it beside this package (npm leaves it out with --omit=optional), or name a library in LITESTREAM_VFS_LIB";
    throw new Error(`there is no package ${binary}: ${remedy}`, { cause });
  }
}

function load(db) {
  const library = getLoadablePath();
  // node-sqlite3 answers later; its connections queue what comes after.
  if (isAsync(db)) return new Promise((resolve, reject) => db.loadExtension(library, (error) => (error ? reject(error) : resolve())));
  db.loadExtension(library);
}

function isAsync(db) {
  return typeof db.all === "function" && typeof db.each === "function";
}

function uri(file, settings = {}) {
  const { replica, role, ...rest } = settings;
  const pairs = [["vfs", "litestream"], ...[replica ?? []].flat().map((url) => ["replica", url])];
  if (role === "replica") pairs.push(["mode", "ro"]);
  else if (role !== undefined) pairs.push(["role", role]);
  pairs.push(...Object.entries(rest).filter(([, value]) => value !== undefined && value !== null));
  const query = pairs.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
  return `file:${file.split("/").map(encodeURIComponent).join("/")}?${query}`;
}

/** The entry of a database, with the keys of a configuration file. */
function entry({ replica, ...settings }) {
  const kebab = (name) => name.replaceAll("_", "-").replace(/[A-Z]/g, (letter) => "-" + letter.toLowerCase());
  const named = Object.entries(settings).filter(([, value]) => value !== undefined && value !== null);
  const replicas = replica === undefined ? {} : Array.isArray(replica) ? { replicas: replica.map((url) => ({ url })) } : { replica };
  return JSON.stringify({ ...replicas, ...Object.fromEntries(named.map(([name, value]) => [kebab(name), value])) });
}

function configure(Database, file, settings) {
  if (isAsync(Database.prototype)) throw new TypeError("node-sqlite3 takes URIs: open uri(file, settings) after load(db), or use connect()");
  const loader = new Database(":memory:", { allowExtension: true });
  try {
    load(loader);
    loader.prepare("SELECT litestream_default_vfs(1)").get();
    loader.prepare("SELECT litestream_configure(?, ?)").get(path.resolve(file), settings && entry(settings));
  } finally {
    loader.close();
  }
}

function connect(Database, file, settings = {}, options = undefined) {
  if (isAsync(Database.prototype)) return connectLater(Database, file, settings);
  // Without any, what the configuration file has for it holds.
  configure(Database, file, Object.keys(settings).length ? settings : null);
  return options === undefined ? new Database(file) : new Database(file, options);
}

async function connectLater(Database, file, settings) {
  const open = (name, flags) =>
    new Promise((resolve, reject) => {
      const db = new Database(name, flags, (error) => (error ? reject(error) : resolve(db)));
    });
  const loader = await open(":memory:", OPEN_URI);
  try {
    await load(loader);
  } finally {
    loader.close();
  }
  return open(uri(file, settings), settings.role === "replica" ? 0x01 | 0x40 : OPEN_URI);
}

module.exports = { configure, connect, getLoadablePath, load, uri };
