import java.io.*;
import java.math.BigDecimal;
import java.sql.*;
import java.time.OffsetDateTime;
import java.util.*;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;

/** pgjdbc: extended protocol, statements that become named ones after five uses, binary transfer, batches, fetch size. */
public class JdbcScript {
    interface Step { void run() throws Exception; }

    static final String URL = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
    static String more = "";
    static Connection conn;

    static Connection open(String options) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", System.getenv("PGUSER"));
        properties.setProperty("password", System.getenv("PGPASSWORD"));
        return DriverManager.getConnection(URL + (options.isEmpty() ? "" : "?" + options), properties);
    }

    static void show(Object... values) {
        StringJoiner line = new StringJoiner(" ");
        for (Object value : values) {
            line.add(value instanceof Object[] array ? Arrays.deepToString(array) : value instanceof int[] ints ? Arrays.toString(ints)
                : value instanceof byte[] bytes ? HexFormat.of().formatHex(bytes) : String.valueOf(value));
        }
        System.out.println(line);
    }

    static void report(Throwable error) {
        show("error:", error.getClass().getSimpleName(), error instanceof SQLException e ? e.getSQLState() : "", error.getMessage());
        if (error instanceof PSQLException e && e.getServerErrorMessage() != null) {
            ServerErrorMessage m = e.getServerErrorMessage();
            show(m.getSeverity(), m.getSQLState(), m.getMessage(), m.getDetail(), m.getHint(), m.getPosition(), m.getWhere(), m.getSchema(), m.getTable(), m.getColumn(), m.getConstraint());
        }
        if (error instanceof BatchUpdateException e) show(e.getUpdateCounts());
        if (error instanceof SQLException e && e.getNextException() != null) report(e.getNextException());
    }

    static void fails(Step step) {
        try {
            step.run();
            show("no error");
        } catch (Exception error) {
            report(error);
        }
    }

    static void section(String name, Step step) throws Exception {
        System.out.println("== " + name + more);
        try {
            step.run();
        } catch (Throwable error) {
            report(error);
        }
        if (conn.isClosed()) conn = open("");
        if (!conn.getAutoCommit()) {
            conn.rollback();
            conn.setAutoCommit(true);
        }
    }

    static List<List<Object>> query(String sql, Object... args) throws SQLException {
        try (PreparedStatement statement = conn.prepareStatement(sql)) {
            for (int n = 0; n < args.length; n++) statement.setObject(n + 1, args[n]);
            if (!statement.execute()) return List.of(List.of((Object) statement.getUpdateCount()));
            return rows(statement.getResultSet());
        }
    }

    static List<List<Object>> rows(ResultSet result) throws SQLException {
        List<List<Object>> all = new ArrayList<>();
        while (result.next()) {
            List<Object> row = new ArrayList<>();
            for (int n = 1; n <= result.getMetaData().getColumnCount(); n++) {
                Object value = result.getObject(n);
                row.add(value instanceof byte[] bytes ? HexFormat.of().formatHex(bytes) : value);
            }
            all.add(row);
        }
        return all;
    }

    static List<Object> balances() throws SQLException {
        return List.of(query("select balance from accounts where id = ?", "alice").get(0).get(0), query("select balance from accounts where id = ?", "bob").get(0).get(0));
    }

    static void insertTypes(String key) throws SQLException {
        String sql = "insert into types_demo (id, i, b, t, u, n, ts, f, d, y, j, a, ta) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?::jsonb, ?, ?)";
        try (PreparedStatement insert = conn.prepareStatement(sql)) {
            insert.setString(1, key);
            insert.setInt(2, Integer.MIN_VALUE);
            insert.setLong(3, Long.MAX_VALUE);
            insert.setString(4, "naïve € 😀 'quoted' \\ back\nline");
            insert.setObject(5, UUID.fromString("0b7e3f5c-4c8e-4d3b-9a6e-1f2d3c4b5a69"));
            insert.setBigDecimal(6, new BigDecimal("12345678901234567890.000123456789"));
            insert.setObject(7, OffsetDateTime.parse("2024-02-29T23:59:58.123456Z"));
            insert.setBoolean(8, true);
            insert.setDouble(9, 0.1);
            byte[] bytes = new byte[256];
            for (int n = 0; n < 256; n++) bytes[n] = (byte) n;
            insert.setBytes(10, bytes);
            insert.setString(11, "{\"a\": [1, null, \"ü\"]}");
            insert.setArray(12, conn.createArrayOf("int4", new Integer[] {1, null, 3}));
            insert.setArray(13, conn.createArrayOf("text", new String[] {"x", null, "a \"b\", {c}"}));
            show(insert.executeUpdate());
            insert.setString(1, key + "-null");
            int[] types = {Types.INTEGER, Types.BIGINT, Types.VARCHAR, Types.OTHER, Types.NUMERIC, Types.TIMESTAMP_WITH_TIMEZONE, Types.BOOLEAN, Types.DOUBLE, Types.BINARY, Types.VARCHAR, Types.ARRAY, Types.NULL};
            for (int n = 0; n < types.length; n++) insert.setNull(n + 2, types[n]);
            show(insert.executeUpdate());
        }
    }

    static void steps() throws Exception {
        section("connect", () -> {
            DatabaseMetaData m = conn.getMetaData();
            show(m.getDatabaseProductName(), m.getDatabaseProductVersion(), m.getDatabaseMajorVersion(), m.getUserName(), conn.getCatalog(), conn.getSchema());
            show(conn.getTransactionIsolation(), conn.isReadOnly(), conn.isValid(5), m.getDefaultTransactionIsolation(), m.getMaxConnections() > 0);
            show(conn.unwrap(PGConnection.class).getBackendPID() > 0, new TreeMap<>(conn.unwrap(PGConnection.class).getParameterStatuses()));
            show(query("select current_user, current_database(), 1"));
        });
        section("parameters", () -> {
            insertTypes("t-1");
            for (int n = 0; n < 7; n++) { // from the fifth on a named statement, with binary results
                for (String key : List.of("t-1", "t-1-null")) {
                    try (PreparedStatement select = conn.prepareStatement("select * from types_demo where id = ?")) {
                        select.setString(1, key);
                        ResultSet result = select.executeQuery();
                        show(rows(result));
                        if (n == 0) {
                            ResultSetMetaData m = result.getMetaData();
                            for (int c = 1; c <= m.getColumnCount(); c++)
                                show(m.getColumnName(c), m.getColumnType(c), m.getColumnTypeName(c), m.getPrecision(c), m.getScale(c), m.isNullable(c), m.isAutoIncrement(c), m.getColumnClassName(c));
                            ParameterMetaData p = select.getParameterMetaData();
                            show(p.getParameterCount(), p.getParameterTypeName(1));
                        }
                    }
                }
            }
            fails(() -> query("select balance from accounts where id = 'alice' and balance = ?", "x"));
            fails(() -> query("select balance from accounts where id = ?", 7));
            show(query("select ?::int + 1, ?::text, ?::uuid[]", 1, "x", "{}"));
        });
        section("prepared", () -> {
            try (PreparedStatement update = conn.prepareStatement("update accounts set balance = balance + ? where id = ? returning id, balance")) {
                for (int n = 0; n < 20; n++) {
                    update.setInt(1, n);
                    update.setString(2, String.format("d-%02d", n));
                    show(rows(update.executeQuery()));
                }
                update.setLong(1, 5); // another type: prepared again
                update.setString(2, "d-00");
                show(rows(update.executeQuery()));
            }
        });
        section("transfer", () -> {
            conn.setAutoCommit(false);
            show(query("update accounts set balance = balance - ? where id = ?", 100, "alice"));
            show(query("update accounts set balance = balance + ? where id = ?", 100, "bob"));
            conn.commit();
            show(balances());
        });
        section("check", () -> {
            conn.setAutoCommit(false);
            query("update accounts set balance = balance + ? where id = ?", 5000, "bob");
            fails(() -> query("update accounts set balance = balance - ? where id = ?", 5000, "alice"));
            fails(() -> query("select 1"));
            fails(() -> conn.commit()); // the driver notices the ROLLBACK
            show(balances());
        });
        section("savepoint", () -> {
            conn.setAutoCommit(false);
            query("update accounts set balance = balance - 1 where id = 'alice'");
            Savepoint savepoint = conn.setSavepoint("s");
            fails(() -> query("insert into accounts values ('bob', 1)"));
            conn.rollback(savepoint);
            query("update accounts set balance = balance + 1 where id = 'bob'");
            conn.releaseSavepoint(savepoint);
            conn.commit();
            show(balances());
            try (Connection own = open("autosave=always")) {
                own.setAutoCommit(false);
                try (Statement statement = own.createStatement()) {
                    statement.executeUpdate("update accounts set balance = balance - 1 where id = 'alice'");
                    fails(() -> statement.executeUpdate("insert into accounts values ('bob', 1)"));
                    statement.executeUpdate("update accounts set balance = balance + 1 where id = 'bob'");
                }
                own.commit();
            }
            show(balances());
        });
        section("batch", () -> {
            conn.setAutoCommit(false);
            try (PreparedStatement insert = conn.prepareStatement("insert into accounts values (?, ?)")) {
                for (int n = 0; n < 600; n++) {
                    insert.setString(1, String.format("k-%03d", n));
                    insert.setInt(2, n);
                    insert.addBatch();
                }
                show(Arrays.stream(insert.executeBatch()).sum());
            }
            conn.commit();
            conn.setAutoCommit(true);
            try (PreparedStatement update = conn.prepareStatement("update accounts set balance = balance - ? where id = ?")) {
                for (Object[] pair : new Object[][] {{1, "k-100"}, {1, "k-101"}, {1000000, "k-102"}, {1, "k-103"}}) {
                    update.setInt(1, (Integer) pair[0]);
                    update.setString(2, (String) pair[1]);
                    update.addBatch();
                }
                fails(update::executeBatch);
            }
            show(query("select balance from accounts where id = 'k-100'"));
            try (PreparedStatement insert = conn.prepareStatement("insert into accounts values (?, ?) returning id", Statement.RETURN_GENERATED_KEYS)) {
                for (int n = 0; n < 5; n++) {
                    insert.setString(1, "g-" + n);
                    insert.setInt(2, n);
                    insert.addBatch();
                }
                show(insert.executeBatch());
                show(rows(insert.getGeneratedKeys()));
            }
            try (Statement statement = conn.createStatement()) {
                statement.addBatch("update accounts set balance = 1 where id = 'k-001'");
                statement.addBatch("update accounts set balance = 2 where id = 'k-002'");
                statement.addBatch("update accounts set balance = 3 where id = 'no such'");
                show(statement.executeBatch());
                show(statement.execute("select 1; update accounts set balance = 5 where id = 'k-005'; select 'b'"), rows(statement.getResultSet()),
                    statement.getMoreResults(), statement.getUpdateCount(), statement.getMoreResults(), rows(statement.getResultSet()));
            }
        });
        section("cursor", () -> {
            conn.setAutoCommit(false);
            try (PreparedStatement select = conn.prepareStatement("select quantity from orders where customer = ? order by order_id")) {
                select.setFetchSize(10);
                select.setString(1, "carol");
                ResultSet result = select.executeQuery();
                long sum = 0;
                int rows = 0;
                while (result.next()) {
                    sum += result.getLong(1);
                    if (++rows % 7 == 0) query("update accounts set balance = balance + 1 where id = ?", "k-010");
                }
                show(sum, rows);
            }
            try (Statement select = conn.createStatement()) {
                select.setFetchSize(7);
                List<Object> ids = new ArrayList<>();
                ResultSet result = select.executeQuery("select id from accounts where id like 'd-%'");
                while (result.next()) ids.add(result.getString(1));
                ids.sort(null);
                show(ids);
                select.setMaxRows(3);
                show(rows(select.executeQuery("select quantity from orders where customer = 'carol' order by order_id")));
            }
            try (Statement scroll = conn.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_READ_ONLY)) {
                ResultSet result = scroll.executeQuery("select quantity from orders where customer = 'carol' order by order_id");
                result.last();
                show(result.getRow(), result.getInt(1), result.absolute(5), result.getInt(1), result.previous(), result.getInt(1));
            }
            try (Statement updatable = conn.createStatement(ResultSet.TYPE_SCROLL_SENSITIVE, ResultSet.CONCUR_UPDATABLE)) {
                ResultSet result = updatable.executeQuery("select id, balance from accounts where id = 'd-39'");
                result.next();
                result.updateLong("balance", 4242);
                result.updateRow();
                show(query("select balance from accounts where id = 'd-39'"));
            }
            conn.commit();
        });
        section("copy", () -> {
            var copy = conn.unwrap(PGConnection.class).getCopyAPI();
            StringBuilder text = new StringBuilder();
            for (int n = 0; n < 10; n++) text.append("c-" + n + "\t" + n + "\n");
            show(copy.copyIn("copy accounts from stdin", new StringReader(text.toString())));
            StringWriter out = new StringWriter();
            show(copy.copyOut("copy (select quantity, sku from orders where customer = 'carol' order by order_id limit 5) to stdout", out), out);
            out = new StringWriter();
            show(copy.copyOut("copy accounts to stdout", out), Arrays.stream(out.toString().split("\n")).sorted().toList());
            fails(() -> copy.copyIn("copy accounts from stdin", new StringReader("f-1\t1\nf-2\tx\n")));
            show(balances());
        });
        section("cancel", () -> {
            try (Statement slow = conn.createStatement()) {
                Thread thread = new Thread(() -> {
                    try {
                        Thread.sleep(300);
                        slow.cancel();
                    } catch (Exception error) {
                        report(error);
                    }
                });
                thread.start();
                fails(() -> slow.executeQuery("select pg_sleep(30)"));
                thread.join();
                slow.setQueryTimeout(1);
                fails(() -> slow.executeQuery("select pg_sleep(30)"));
            }
            show(query("select 1"));
        });
        section("errors", () -> {
            for (String statement : List.of("selec 1", "select * from no_such_table", "select 1/0", "insert into accounts values ('x', null)", "insert into accounts values ('alice', 1)",
                    "select no_such_column from accounts where id = 'alice'", "select 'a'::int", "update accounts set balance = -1 where id = 'alice'", "select ?::int + ?"))
                fails(() -> query(statement));
            try (Statement statement = conn.createStatement()) {
                for (String word : List.of("begin", "begin", "commit", "commit", "")) {
                    show(statement.execute(word));
                    for (SQLWarning w = statement.getWarnings(); w != null; w = w.getNextWarning()) show("warning:", w.getSQLState(), w.getMessage());
                    statement.clearWarnings();
                }
            }
        });
        section("reconnect", () -> {
            query("set application_name = 'first'");
            conn.setClientInfo("ApplicationName", "by api");
            show(query("show application_name"));
            conn.close();
            conn = open("ApplicationName=second&options=-c%20statement_timeout=5000&assumeMinServerVersion=15&currentSchema=public");
            show(query("show application_name"), query("show statement_timeout"), query("show search_path"), balances());
            conn.setReadOnly(true);
            conn.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
            conn.setAutoCommit(false);
            show(query("show transaction_isolation"), query("show transaction_read_only"), balances());
            fails(() -> query("update accounts set balance = 0 where id = 'alice'"));
            conn.close();
            conn = open("");
        });
    }

    static void introspect() throws Exception {
        section("introspect", () -> {
            DatabaseMetaData m = conn.getMetaData();
            show(rows(m.getTables(null, "public", "%", new String[] {"TABLE"})));
            show(rows(m.getColumns(null, "public", "orders", "%")));
            show(rows(m.getPrimaryKeys(null, "public", "orders")));
            show(rows(m.getIndexInfo(null, "public", "orders", false, false)));
            show(rows(m.getImportedKeys(null, "public", "orders")), rows(m.getSchemas(null, "public")), rows(m.getTableTypes()));
            show(rows(m.getTypeInfo()).size() > 20, rows(m.getBestRowIdentifier(null, "public", "accounts", DatabaseMetaData.bestRowTransaction, true)));
        });
    }

    public static void main(String[] args) throws Exception {
        conn = open("");
        System.out.println("driver: " + conn.getMetaData().getDriverVersion() + " Java " + Runtime.version().feature());
        steps();
        introspect();
        conn.close();
        // The simple protocol, for poolers: parameters put into the text by the driver.
        more = " simple";
        conn = open("preferQueryMode=simple");
        section("transfer", () -> {
            conn.setAutoCommit(false);
            show(query("update accounts set balance = balance - ? where id = ?", 100, "alice"), query("update accounts set balance = balance + ? where id = ?", 100, "bob"));
            conn.commit();
            show(balances());
        });
        conn.close();
        more = " rewritten";
        conn = open("reWriteBatchedInserts=true");
        section("batch", () -> {
            try (PreparedStatement insert = conn.prepareStatement("insert into accounts values (?, ?)")) {
                for (int n = 0; n < 10; n++) {
                    insert.setString(1, "w-" + n);
                    insert.setInt(2, n);
                    insert.addBatch();
                }
                show(insert.executeBatch());
            }
        });
        conn.close();
    }
}
