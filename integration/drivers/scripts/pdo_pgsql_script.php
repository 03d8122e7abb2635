<?php
// PHP's PDO_pgsql (statements prepared on the server, or emulated) and, for what PDO lacks, the pgsql extension on the same libpq.
error_reporting(E_ALL);
$dsn = "pgsql:host=" . getenv("PGHOST") . ";port=" . getenv("PGPORT") . ";dbname=" . getenv("PGDATABASE");
function open_it(array $options = [], string $more = ""): PDO
{
    global $dsn;
    return new PDO($dsn . $more, getenv("PGUSER"), getenv("PGPASSWORD"), $options + [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
}
$pdo = open_it();
echo "driver: ", phpversion("pdo_pgsql"), " libpq ", $pdo->getAttribute(PDO::ATTR_CLIENT_VERSION), "\n";

function show(...$values): void
{
    echo implode(" ", array_map(fn ($v) => json_encode($v, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE), $values)), "\n";
}
function report(Throwable $error): void
{
    show("error:", get_class($error), $error->getMessage(), $error instanceof PDOException ? $error->errorInfo : null);
}
function fails(callable $function): void
{
    try {
        $function();
        show("no error");
    } catch (Throwable $error) {
        report($error);
    }
}
function section(string $name, callable $function): void
{
    global $pdo;
    echo "== $name\n";
    try {
        $function();
    } catch (Throwable $error) {
        report($error);
    }
    if ($pdo->inTransaction()) {
        $pdo->rollBack();
    }
}
function query(string $sql, array $args = [], ?PDO $on = null): array
{
    global $pdo;
    $statement = ($on ?? $pdo)->prepare($sql);
    $statement->execute($args);
    return $statement->columnCount() ? $statement->fetchAll(PDO::FETCH_NUM) : [$statement->rowCount()];
}
function balances(): array
{
    return array_map(fn ($who) => query("select balance from accounts where id = ?", [$who])[0][0], ["alice", "bob"]);
}

section("connect", function () {
    global $pdo;
    show($pdo->getAttribute(PDO::ATTR_SERVER_VERSION), $pdo->getAttribute(PDO::ATTR_CONNECTION_STATUS),
        preg_replace("/PID: \d+;/", "", $pdo->getAttribute(PDO::ATTR_SERVER_INFO)), $pdo->getAttribute(PDO::ATTR_DRIVER_NAME));
    show(query("select current_user, current_database(), 1"));
});

section("parameters", function () {
    global $pdo;
    foreach ([false, true] as $emulated) {
        $p = $emulated ? "e" : "t";
        $conn = open_it([PDO::ATTR_EMULATE_PREPARES => $emulated]);
        $insert = $conn->prepare("insert into types_demo (id, i, b, t, u, n, ts, f, d, y, j, a, ta) values (:id, :i, :b, :t, :u, :n, :ts, :f, :d, :y, :j, :a, :ta)");
        $values = ["id" => "$p-1", "i" => -2147483648, "b" => "9223372036854775807", "t" => "naïve € 😀 'quoted' \\ back\nline", "u" => "0b7e3f5c-4c8e-4d3b-9a6e-1f2d3c4b5a69",
            "n" => "12345678901234567890.000123456789", "ts" => "2024-02-29 23:59:58.123456+00", "d" => "0.1", "j" => '{"a": [1, null, "ü"]}', "a" => "{1,NULL,3}", "ta" => '{x,NULL,"a \"b\""}'];
        foreach ($values as $name => $value) {
            $insert->bindValue($name, $value);
        }
        $insert->bindValue("f", true, PDO::PARAM_BOOL);
        $insert->bindValue("y", implode(array_map("chr", range(0, 255))), PDO::PARAM_LOB);
        $insert->execute();
        show($insert->rowCount());
        query("insert into types_demo (id, i, t) values (?, ?, ?)", ["$p-2", null, null], $conn);
        foreach (["$p-1", "$p-2"] as $key) {
            $select = $conn->prepare("select * from types_demo where id = ?");
            $select->execute([$key]);
            for ($n = 0; $n < $select->columnCount(); $n++) {
                // The last one reads the table's OID, which is another one on every server.
                show(array_diff_key($select->getColumnMeta($n), ["pgsql:table_oid" => 0]));
            }
            show(array_map(fn ($v) => is_resource($v) ? bin2hex(stream_get_contents($v)) : $v, $select->fetch(PDO::FETCH_ASSOC)));
        }
    }
    fails(fn () => query("select balance from accounts where id = 'alice' and balance = ?", ["x"]));
});

section("prepared", function () {
    global $pdo;
    $update = $pdo->prepare("update accounts set balance = balance + ? where id = ? returning id, balance");
    for ($n = 0; $n < 20; $n++) {
        $update->execute([$n, sprintf("d-%02d", $n)]);
        show($update->fetchAll(PDO::FETCH_ASSOC));
    }
});

section("transfer", function () {
    global $pdo;
    $pdo->beginTransaction();
    show(query("update accounts set balance = balance - ? where id = ?", [100, "alice"]), $pdo->inTransaction());
    show(query("update accounts set balance = balance + ? where id = ?", [100, "bob"]));
    $pdo->commit();
    show(balances(), $pdo->inTransaction());
});

section("check", function () {
    global $pdo;
    $pdo->beginTransaction();
    query("update accounts set balance = balance + 5000 where id = 'bob'");
    fails(fn () => query("update accounts set balance = balance - 5000 where id = 'alice'"));
    fails(fn () => query("select 1"));
    $pdo->commit(); // which rolls back
    show(balances());
});

section("savepoint", function () {
    global $pdo;
    $pdo->beginTransaction();
    query("update accounts set balance = balance - 1 where id = 'alice'");
    $pdo->exec("savepoint s");
    fails(fn () => query("insert into accounts values ('bob', 1)"));
    $pdo->exec("rollback to savepoint s");
    query("update accounts set balance = balance + 1 where id = 'bob'");
    $pdo->exec("release savepoint s");
    $pdo->commit();
    show(balances());
});

section("batch", function () {
    global $pdo;
    $pdo->beginTransaction();
    $insert = $pdo->prepare("insert into accounts values (?, ?)");
    for ($n = 0; $n < 12; $n++) {
        $insert->execute([sprintf("k-%02d", $n), $n]);
    }
    $pdo->commit();
    show($pdo->exec("update accounts set balance = 1 where id = 'k-01'; update accounts set balance = 2 where id = 'k-02'"));
    $rows = query("select id, balance from accounts where id = any(?)", ["{k-00,k-01,k-02,k-03,k-04,k-05}"]);
    sort($rows);
    show($rows);
});

section("cursor", function () {
    global $pdo;
    $pdo->beginTransaction();
    $pdo->exec("declare part cursor for select quantity from orders where customer = 'carol' order by order_id");
    $sum = 0;
    while ($rows = query("fetch 10 from part")) {
        $sum += array_sum(array_column($rows, 0));
    }
    show($sum);
    $pdo->commit();
});

// PDO's scrollable cursors are WITH HOLD.
section("cursor with hold", function () {
    global $pdo;
    $pdo->beginTransaction();
    $scroll = $pdo->prepare("select quantity from orders where customer = 'carol' order by order_id", [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
    $scroll->execute();
    show($scroll->fetch(PDO::FETCH_NUM), $scroll->fetch(PDO::FETCH_NUM), $scroll->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_LAST), $scroll->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_PRIOR));
    $scroll->closeCursor();
    $pdo->commit();
});

section("copy", function () {
    global $pdo;
    show($pdo->pgsqlCopyFromArray("accounts", array_map(fn ($n) => "c-$n\t$n", range(0, 9))));
    $rows = $pdo->pgsqlCopyToArray("(select quantity, sku from orders where customer = 'carol' order by order_id limit 5)");
    show($rows);
    $rows = $pdo->pgsqlCopyToArray("accounts");
    sort($rows);
    show($rows);
    fails(fn () => show($pdo->pgsqlCopyFromArray("accounts", ["f-1\t1", "f-2\tx"])));
    show(balances());
});

section("cancel", function () {
    $conn = pg_connect("", PGSQL_CONNECT_FORCE_NEW);
    show(pg_send_query($conn, "select pg_sleep(30)"));
    usleep(300000);
    show(pg_connection_busy($conn), pg_cancel_query($conn), pg_connection_busy($conn));
    while ($result = pg_get_result($conn)) {
        show(pg_result_error_field($result, PGSQL_DIAG_SQLSTATE));
    }
    show(pg_fetch_all(pg_query($conn, "select 1 as one")));
    pg_query($conn, "set statement_timeout = 200");
    show(@pg_query($conn, "select pg_sleep(30)"), pg_last_error($conn), pg_transaction_status($conn));
    pg_close($conn);
});

section("errors", function () {
    global $pdo;
    foreach (["selec 1", "select * from no_such_table", "select 1/0", "insert into accounts values ('x', null)", "insert into accounts values ('alice', 1)",
        "select no_such_column from accounts where id = 'alice'", "select 'a'::int", "update accounts set balance = -1 where id = 'alice'"] as $statement) {
        fails(fn () => query($statement));
        fails(fn () => $pdo->exec($statement));
    }
    $conn = pg_connect("", PGSQL_CONNECT_FORCE_NEW);
    foreach (["begin", "begin", "commit", "commit"] as $statement) {
        pg_query($conn, $statement);
    }
    show(pg_last_notice($conn, PGSQL_NOTICE_ALL));
});

section("reconnect", function () {
    global $pdo;
    $pdo->exec("set application_name = 'first'");
    $pdo = null;
    $pdo = open_it([PDO::ATTR_PERSISTENT => true], ";application_name=second");
    show(query("show application_name"), balances());
});

section("introspect", function () {
    $conn = pg_connect("");
    show(array_map(fn ($c) => array_diff_key($c, ["is enum" => 0]), pg_meta_data($conn, "orders")));
    show(pg_convert($conn, "accounts", ["id" => "x", "balance" => "5"]));
    show(pg_field_table(pg_query($conn, "select id, balance as b from accounts where id = 'alice'"), 1));
    show(pg_parameter_status($conn, "server_version"), pg_client_encoding($conn), pg_version($conn));
});
