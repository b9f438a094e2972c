import java.sql.*;
import java.util.Properties;

class Host {
    public static void main(String[] arguments) throws SQLException {
        Properties options = new Properties();
        options.setProperty("enable_load_extension", "true");
        try (Connection first = DriverManager.getConnection("jdbc:sqlite::memory:", options);
             PreparedStatement load = first.prepareStatement("SELECT load_extension(?)")) {
            load.setString(1, arguments[0]);
            load.execute();
        }
        try (Connection db = DriverManager.getConnection("jdbc:sqlite:" + arguments[1]); Statement sql = db.createStatement()) {
            sql.executeUpdate("CREATE TABLE t(x)");
            sql.executeUpdate("INSERT INTO t VALUES (41)");
            sql.execute("SELECT litestream_sync()");
        }
        try (Connection reader = DriverManager.getConnection("jdbc:sqlite:" + arguments[2]); Statement sql = reader.createStatement()) {
            System.out.println(sql.executeQuery("SELECT x + 1 FROM t").getInt(1));
        }
    }
}
