"""What `airflow db migrate`, `check-migrations`, `reset` and `downgrade` call for our tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.utils.db_manager import BaseDBManager

from airflow_approvals.store.append_only import create_guards
from airflow_approvals.store.schema import (
    ALEMBIC_FILE,
    HEAD,
    MIGRATION_FOLDER,
    VERSION_TABLE,
    missing_guards,
)
from airflow_approvals.store.tables import metadata as approvals_metadata

if TYPE_CHECKING:
    from alembic.config import Config


class ApprovalsDBManager(BaseDBManager):
    """Our tables in Airflow's metadata database, under a version table of their own.

    There is one way to the schema, the migrations: they also create the ledger's guards, and a run that was
    cut off half-way (SQLite has no transaction around DDL) is taken up again by the next one.
    """

    metadata = approvals_metadata
    version_table_name = VERSION_TABLE
    migration_dir = MIGRATION_FOLDER
    alembic_file = ALEMBIC_FILE
    supports_table_dropping = True
    revision_heads_map = {"0.1.0": HEAD}  # noqa: RUF012  # as the base class declares it

    def create_db_from_orm(self) -> None:
        """Create the tables by the migrations, where Airflow would create them from the models and stamp."""
        self.upgradedb()

    def initdb(self, use_migration_files: bool = False) -> None:
        """Bring a new or old database up to date; the migrations are used either way."""
        self.upgradedb()

    def upgradedb(
        self,
        to_revision: str | None = None,
        from_revision: str | None = None,
        show_sql_only: bool = False,
        use_migration_files: bool = False,
    ) -> None:
        """Migrate up to `to_revision`, or print the SQL that would."""
        from alembic import command

        target = to_revision or "heads"
        if show_sql_only:
            start = from_revision or self._revision()
            command.upgrade(self._config(), f"{start}:{target}" if start else target, sql=True)
            return
        self._end_reading()
        command.upgrade(self._config(), target)
        if to_revision is None:
            self._restore_guards()

    def downgrade(
        self, to_revision: str, from_revision: str | None = None, show_sql_only: bool = False
    ) -> None:
        """Migrate down to `to_revision`; below the first one the requests and the ledger are gone."""
        from alembic import command

        if show_sql_only:
            start = from_revision or self._revision() or HEAD
            command.downgrade(self._config(), f"{start}:{to_revision}", sql=True)
            return
        self._end_reading()
        command.downgrade(self._config(), to_revision)

    def _restore_guards(self) -> None:
        with self.session.get_bind().engine.begin() as connection:
            gone = missing_guards(connection)
            if gone:
                self.log.warning(
                    "The ledger's triggers were gone (%s) and are created again; verify the ledger",
                    ", ".join(gone),
                )
                create_guards(connection)

    def _config(self) -> Config:
        config: Config = self.get_alembic_config()  # type: ignore[no-untyped-call]  # Airflow's
        return config

    def _revision(self) -> str | None:
        revision: str | None = self.get_current_revision()  # type: ignore[no-untyped-call]  # Airflow's
        return revision

    def _end_reading(self) -> None:
        # A look at the version leaves the session in a transaction; DDL on another connection waits for it.
        self.session.rollback()
