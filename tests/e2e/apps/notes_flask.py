"""A notes application: Flask and SQLAlchemy, for a server that loads it and then forks its workers.

From the environment: NOTES_REPLICA; NOTES_ROLE=replica for the application that only reads.
"""

import os

import sqlite_litestream
from flask import Flask, jsonify, request
from sqlalchemy import Integer, String, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

REPLICA, ROLE = os.environ["NOTES_REPLICA"], os.environ.get("NOTES_ROLE")
engine = create_engine("sqlite:///notes.db", creator=lambda: sqlite_litestream.connect(
    "notes.db", REPLICA, role=ROLE, timeout=30, check_same_thread=False))
os.register_at_fork(after_in_child=lambda: engine.dispose(close=False))


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    body: Mapped[str] = mapped_column(String)


if ROLE != "replica":
    Base.metadata.create_all(engine)
application = Flask(__name__)


@application.post("/notes")
def add():
    with Session(engine) as session:
        note = Note(body=request.get_data(as_text=True))
        session.add(note)
        session.commit()
        # What is answered is in the bucket.
        session.execute(text("SELECT litestream_sync()")).all()
        return jsonify(note.id)


@application.get("/notes")
def show():
    with Session(engine) as session:
        return jsonify([note.body for note in session.scalars(select(Note).order_by(Note.id))])
